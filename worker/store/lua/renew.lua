-- Lengthen the leases of steps that are still running. With `intent` their submits are about to leave, so the intent is
-- written too: after this the request may have been sent. Nothing leaves into a silence.
-- Arguments  lane, lease_ms (from now), provider (of the rate, if the lane has one), rate_window_ms, intent (true or
--            absent), claims (array of {work id, fence})
-- Returns    array of 1 (still ours, and it may go on) or 0
local lane, provider, intent = arguments.lane, arguments.provider, arguments.intent
local hash = hash_of(lane)
local ends = now + arguments.lease_ms
local rate = provider and call('EXISTS', RATE .. provider) == 1 and RATE .. provider
local held_back = intent and is_silenced(provider)

local ids, renewed, ended, answers = {}, {}, {}, {}
for i, claim in ipairs(arguments.claims) do ids[i] = claim[1] end
local leases = #ids > 0 and call('ZMSCORE', LEASED .. lane, unpack(ids)) or {}
for i, claim in ipairs(arguments.claims) do
  local work_id, fence = claim[1], claim[2]
  answers[i] = 0
  if not held_back and leases[i] and tonumber(call('HGET', hash .. work_id, job_field.fence)) == fence then
    answers[i] = 1
    if intent then call('HSET', hash .. work_id, job_field.intent, 1) end
    -- The slot of its request has the name that the claim gave it, before `begin` raised the fence.
    if rate then call('ZADD', rate, 'XX', ends, rate_entry(work_id, fence - 1)) end
    renewed[#renewed + 1] = ends
    renewed[#renewed + 1] = work_id
    ended[tonumber(leases[i])] = true
  end
end
lengthen(lane, provider, renewed, ended)
if rate and #renewed > 0 then call('PEXPIRE', rate, arguments.rate_window_ms + arguments.lease_ms) end
return answers
