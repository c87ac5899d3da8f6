-- Turn claims into running steps, just before anything is sent: each claim is good for one run only, so a message
-- that Celery delivers twice, or late, does nothing. For a submit this writes the intent.
-- ARGV     1 lane, 2 lease ms from now, 3 name of the intent to write or '', 4 'job' or 'delivery', 5 rate group with
--          a limit or '', 6 msgpack array of {item, fence}
-- Returns  {now, array of new fences; 0 where the claim is no longer good}
local lane, lease, intent, kind, group = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5]
local hash = kind == 'job' and JOB or DELIVERY
local ends = now + lease
local fences = {}
for i, pair in ipairs(cmsgpack.unpack(ARGV[6])) do
  local item, fence = pair[1], pair[2]
  local key = hash .. item
  fences[i] = 0
  local has = redis.call('HMGET', key, 'f', 'i')
  -- Lengthening the lease fails where there is none any more: it ended, and the item is due for somebody else.
  if tonumber(has[1]) == fence
      and redis.call('ZADD', LEASED .. lane, 'XX', 'CH', ends + i / 1000, item) == 1 then
    fences[i] = fence + 1
    if intent ~= '' then
      redis.call('HSET', key, 'f', fence + 1, 'i', intent)
    else
      redis.call('HSET', key, 'f', fence + 1)
    end
    if group ~= '' then redis.call('ZADD', RATE .. group, 'XX', now, item .. ':' .. fence) end
  elseif intent ~= '' and has[2] == intent and tonumber(has[1]) == fence + 1 then
    fences[i] = fence + 1  -- the same begin, sent again because its answer was lost
  end
end
return cmsgpack.pack({now, fences})
