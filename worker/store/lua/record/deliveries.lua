-- The verbs of deliveries: from the fan-out of an ended job.
function verbs.fanout(job, fence, targets, told)
  local has, why = own(job, fence)
  if not has then return why end
  take_out(has.lane, job)
  redis.call('HSET', JOB .. job, 'f', has.fence + 1, 'ln', '', 'od', #targets, 'dn', #targets)
  for n, target in ipairs(targets) do
    local id, lane = job .. '#' .. n, 'deliver:' .. target
    redis.call('HSET', DELIVERY .. id, 'f', 0, 'st', 'pending', 'tg', target)
    make_due(lane, id, now)
    busy[lane] = true
  end
  if told ~= '' then note(job, 'provider-told', told) end
  note(job, 'callback', #targets .. (#targets == 1 and ' delivery' or ' deliveries'))
  if #targets == 0 then close(job) end
  return 1
end

-- The delivery as its owner knows it, already taken out of its lane; and its job.
local function own_delivery(id, fence)
  local has = redis.call('HMGET', DELIVERY .. id, 'f', 'tg')
  if not has[1] then return nil, -1 end
  if tonumber(has[1]) ~= fence then return nil, 0 end
  local job = string.match(id, '^(.+)#%d+$')
  take_out('deliver:' .. has[2], id)
  redis.call('HSET', DELIVERY .. id, 'f', fence + 1)
  redis.call('HINCRBY', JOB .. job, 'nd', 1)
  return job, has[2]
end

-- Counted by kind of handler: there may be any number of targets.
local function tally_delivery(target, result)
  tally('delivery:' .. (string.match(target, '^(%a+):') or 'function') .. ':' .. result)
end

local function settle(job, id, state, target, detail)
  tally_delivery(target, state)
  redis.call('HSET', DELIVERY .. id, 'st', state)
  note(job, state, shown(target) .. detail)
  if redis.call('HINCRBY', JOB .. job, 'od', -1) <= 0 then close(job) end
end

function verbs.delivered(id, fence, detail)
  local job, target = own_delivery(id, fence)
  if not job then return target end
  redis.call('HDEL', DELIVERY .. id, 'e', 'a')
  settle(job, id, 'delivered', target, detail == '' and '' or ' ' .. detail)
  return 1
end

function verbs.dead(id, fence, error)
  local job, target = own_delivery(id, fence)
  if not job then return target end
  redis.call('HSET', DELIVERY .. id, 'e', error)
  redis.call('ZADD', DEAD, now, id)
  settle(job, id, 'dead', target, ' ' .. error)
  return 1
end

function verbs.redeliver(id, fence, countdown, error)
  local job, target = own_delivery(id, fence)
  if not job then return target end
  tally_delivery(target, 'retried')
  redis.call('HINCRBY', DELIVERY .. id, 'a', 1)
  redis.call('HSET', DELIVERY .. id, 'e', error)
  make_due('deliver:' .. target, id, now + countdown)
  note(job, 'delivery-retry', shown(target) .. ' ' .. error)
  return 1
end

-- A delivery that the worker gives back at shutdown: not an attempt.
verbs['release-delivery'] = function(id, fence)
  local has = redis.call('HMGET', DELIVERY .. id, 'f', 'tg')
  if not has[1] then return -1 end
  if tonumber(has[1]) ~= fence then return 0 end
  take_out('deliver:' .. has[2], id)
  redis.call('HSET', DELIVERY .. id, 'f', fence + 1)
  make_due('deliver:' .. has[2], id, now)
  return 1
end

-- Repeat one settled delivery; the submit is never repeated.
function verbs.replay(id)
  local has = redis.call('HMGET', DELIVERY .. id, 'st', 'tg')
  if not has[1] then return -1 end
  if has[1] == 'pending' then return 0 end
  local job, lane = string.match(id, '^(.+)#%d+$'), 'deliver:' .. has[2]
  redis.call('ZREM', DEAD, id)
  redis.call('ZREM', CLOSED, job)
  redis.call('HDEL', JOB .. job, 'cl')
  redis.call('HINCRBY', JOB .. job, 'od', 1)
  redis.call('HDEL', DELIVERY .. id, 'a', 'e')
  redis.call('HSET', DELIVERY .. id, 'st', 'pending')
  make_due(lane, id, now)
  busy[lane] = true
  note(job, 'replay', shown(has[2]))
  return 1
end
