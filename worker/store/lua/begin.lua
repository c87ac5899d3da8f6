-- Turn claims into running steps, just before anything is sent: each claim is good for one run only, so a message
-- that Celery delivers twice, or late, does nothing. For a submit this writes the intent.
-- What was claimed before its group was silenced goes back: due again, and claimed when the silence is over.
-- ARGV     1 lane, 2 lease ms from now, 3 name of the intent to write or '', 4 'job' or 'delivery', 5 rate group
--          or '', 6 msgpack array of {item, fence}
-- Returns  {now, array of new fences; 0 where the claim is no longer good}
local lane, lease, intent, kind, group = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local hash = kind == 'job' and JOB or DELIVERY
local ends = now + lease
local fences = {}
local silence = group == '' and {} or redis.call('HMGET', GOVERNOR .. group, 'pu', 'mp', 'bo')
local silent = silence[2] or tonumber(silence[1] or 0) > now or tonumber(silence[3] or 0) > now
local counted = group ~= '' and redis.call('EXISTS', RATE .. group) == 1

local function back(item, fence)
  take_out(lane, item)
  redis.call('HSET', hash .. item, 'f', fence + 1)
  make_due(lane, item, now)
  if counted then redis.call('ZREM', RATE .. group, item .. ':' .. fence) end
end

local wanted, items, renewed = cmsgpack.unpack(ARGV[6]), {}, {}
for i, pair in ipairs(wanted) do items[i] = pair[1] end
-- A claim without a lease any more is not ours: the lease ended, and the item is due for somebody else.
local leases = #items > 0 and redis.call('ZMSCORE', LEASED .. lane, unpack(items)) or {}

for i, pair in ipairs(wanted) do
  local item, fence = pair[1], pair[2]
  local key = hash .. item
  fences[i] = 0
  local has = redis.call('HMGET', key, 'f', 'i')
  if tonumber(has[1]) == fence and leases[i] then
    if silent then
      back(item, fence)
    else
      fences[i] = fence + 1
      redis.call('HSET', key, 'f', fence + 1)
      if intent ~= '' then redis.call('HSET', key, 'i', intent) end
      if counted then redis.call('ZADD', RATE .. group, 'XX', ends, item .. ':' .. fence) end
      renewed[#renewed + 1] = ends
      renewed[#renewed + 1] = item
    end
  elseif intent ~= '' and has[2] == intent and tonumber(has[1]) == fence + 1 then
    fences[i] = fence + 1  -- the same begin, sent again because its answer was lost
  end
end
if #renewed > 0 then redis.call('ZADD', LEASED .. lane, 'XX', unpack(renewed)) end
return cmsgpack.pack({now, fences})
