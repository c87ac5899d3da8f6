-- The verbs of rate groups.
-- Nothing more may be sent to this rate group for a while; a longer pause that stands already wins.
function verbs.pause(group, _, pause, reason)
  local governor = GOVERNOR .. group
  if tonumber(redis.call('HGET', governor, 'pu') or 0) < now + pause then
    redis.call('HSET', governor, 'pu', now + pause, 'pr', reason)
  end
  return 1
end

-- A person stops everything of this rate group, until a person resumes it.
function verbs.suspend(group, _, reason)
  redis.call('HSET', GOVERNOR .. group, 'mp', now, 'mr', reason)
  return 1
end

-- Its lanes are looked at at once, not when the pause had them looked at next.
function verbs.resume(group, _, resumed)
  if redis.call('HDEL', GOVERNOR .. group, 'mp', 'mr') == 0 then return 0 end
  for _, lane in ipairs(resumed) do redis.call('ZADD', LANES, 'XX', 'LT', now, lane) end
  return 1
end

-- The provider could not be reached or failed. After `most` in a row the breaker opens; while it is open each failed
-- probe doubles the time until the next one.
function verbs.outage(group, _, reason, most, wait, longest)
  local governor = GOVERNOR .. group
  local failures = redis.call('HINCRBY', governor, 'bf', 1)
  local opened = redis.call('HMGET', governor, 'bo', 'bt')
  if not opened[1] and failures < most then return 1 end
  if opened[1] and tonumber(opened[1]) > now then return 1 end
  if not opened[1] then tally('opened:' .. group) end
  local times = tonumber(opened[2] or 0)
  redis.call('HSET', governor, 'bo', now + math.min(wait * 2 ^ times, longest), 'bt', times + 1, 'br', reason)
  redis.call('HDEL', governor, 'bp')
  return 1
end

-- A step of a limited rate group is over: its requests count from now, when the last of them had certainly arrived.
function verbs.spent(group, _, item, fence, requests, window)
  local rate, request = RATE .. group, item .. ':' .. fence
  if requests == 0 then
    redis.call('ZREM', rate, request)
  else
    redis.call('ZADD', rate, 'XX', now, request)
    for extra = 2, requests do redis.call('ZADD', rate, now, request .. ':' .. extra) end
  end
  -- A lane that waited for this place waited for the lease's end: look again when the place is free.
  for _, step in ipairs({'submit:', 'poll:'}) do redis.call('ZADD', LANES, 'XX', 'LT', now + window + 1, step .. group) end
  return 1
end
