-- Turn claims into running steps, just before anything is sent: each claim is good for one run only, so a message
-- that Celery delivers twice, or late, does nothing. The intent of a submit is written later (renew.lua).
-- What was claimed before its provider was silenced goes back: due again, and claimed when the silence is over.
-- Arguments  lane, lease_ms (from now), provider (of the rate, if the lane has one), claims (array of {work id, fence})
-- Returns    {now, array of new fences; 0 where the claim is no longer good}
local lane, provider = arguments.lane, arguments.provider
local hash = hash_of(lane)
local ends = now + arguments.lease_ms

local silenced = is_silenced(provider)
local rate = provider and call('EXISTS', RATE .. provider) == 1 and RATE .. provider

local function put_back(work_id, fence)
  take_out(lane, work_id)
  call('HSET', hash .. work_id, job_field.fence, fence + 1)
  make_due(lane, work_id, now)
  if rate then call('ZREM', rate, rate_entry(work_id, fence)) end
end

local ids = {}
for i, claim in ipairs(arguments.claims) do ids[i] = claim[1] end
-- A claim without a lease any more is not ours: the lease ended, and its work is due for somebody else.
local leases = #ids > 0 and call('ZMSCORE', LEASED .. lane, unpack(ids)) or {}

local fences, renewed, ended = {}, {}, {}
for i, claim in ipairs(arguments.claims) do
  local work_id, fence = claim[1], claim[2]
  fences[i] = 0
  local key = hash .. work_id
  if leases[i] and tonumber(call('HGET', key, job_field.fence)) == fence then
    if silenced then
      put_back(work_id, fence)
    else
      fences[i] = fence + 1
      call('HSET', key, job_field.fence, fence + 1)
      if rate then call('ZADD', rate, 'XX', ends, rate_entry(work_id, fence)) end
      renewed[#renewed + 1] = ends
      renewed[#renewed + 1] = work_id
      ended[tonumber(leases[i])] = true
    end
  end
end
lengthen(lane, provider, renewed, ended)
return cmsgpack.pack({now, fences})
