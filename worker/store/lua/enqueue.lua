-- Record new jobs. Same id or idempotency key and same request: the same job. Another request: conflict.
-- ARGV[1]  msgpack array of {id, provider, operation, digest, spec, key, deadline, error, message, countdown,
--          tenant, priority, trace}
--          key: idempotency key or ''; deadline: ms from now or 0; error: JSON of a refusal or '' (the job then is
--          failed from the start); message: taken-in message that this job came in, or ''; countdown: ms until its submit
-- ARGV[2]  ms that an alias of a job is kept
-- Returns  array of {code, job id}: 1 created, 2 the same job, 3 conflict (job id: as given if it is the id that clashes)
-- States   (none) -> queued | failed
local answers = {}

-- The job that stands for this id already, its digest, and whether it is the id that led to it.
local function existing(id, key, tenant)
  local alias = redis.call('GET', ALIAS .. id)
  local job = alias or id
  local digest = redis.call('HGET', JOB .. job, 'dg')
  if digest then return job, digest, true end
  if alias then redis.call('DEL', ALIAS .. id) end
  if key == '' then return nil end
  job = redis.call('GET', key_of(tenant, key))
  if not job and tenant ~= '' then  -- release 0.1.0 kept all keys together
    job = redis.call('GET', IDEMPOTENCY .. key)
    if job and redis.call('HGET', JOB .. job, 'tn') ~= tenant then return nil end
  end
  if not job then return nil end
  return job, redis.call('HGET', JOB .. job, 'dg')
end

-- The turn of a job that is due at once: tenants take turns, however many jobs one of them has; a more urgent priority
-- goes before all others. Turns are far below any time, so that such a job is due.
local function turn(lane, tenant, priority)
  local band = 9 - priority
  local has = redis.call('HMGET', FAIR .. lane, band, band .. ':' .. tenant)
  local mine = math.max(tonumber(has[1] or 0), tonumber(has[2] or 0)) + 1
  redis.call('HSET', FAIR .. lane, band .. ':' .. tenant, mine)
  return band * BAND + mine
end

local function create(id, provider, operation, digest, spec, key, deadline, error, countdown, tenant, priority, trace)
  local state, lane = 'queued', 'submit:' .. provider
  if error ~= '' then state, lane = 'failed', 'callback' end
  redis.call('HSET', JOB .. id, 'p', provider, 'op', operation, 'st', state, 'c', now, 'dg', digest, 'f', 0, 'ln', lane)
  if deadline > 0 then redis.call('HSET', JOB .. id, 'dl', now + deadline) end
  redis.call('SET', SPEC .. id, spec)
  if key ~= '' then
    redis.call('HSET', JOB .. id, 'ik', key)
    redis.call('SET', key_of(tenant, key), id)
  end
  redis.call('ZADD', INDEX .. provider .. ':' .. state, now, id)
  redis.call('SADD', PROVIDERS, provider)
  if error ~= '' then
    redis.call('SET', ERROR .. id, error)
    redis.call('HSET', JOB .. id, 'en', now)
    note(id, 'refused', error)
  else
    note(id, 'enqueued')
    tally('accepted:' .. provider, 'accepted')
  end
  if tenant ~= '' then
    redis.call('HSET', JOB .. id, 'tn', tenant)
    redis.call('ZADD', TENANT .. tenant, now, id)
  end
  if trace and trace ~= '' then redis.call('HSET', JOB .. id, 'tp', trace) end
  if error ~= '' or countdown > 0 then
    make_due(lane, id, now + countdown)
  else
    make_due(lane, id, turn(lane, tenant, priority))
  end
end

for i, entry in ipairs(cmsgpack.unpack(ARGV[1])) do
  local id, provider, operation, digest, spec, key, deadline, error, message, countdown, tenant, priority, trace =
    unpack(entry)
  local job, known, by_id = existing(id, key, tenant)
  if not known then
    create(id, provider, operation, digest, spec, key, deadline, error, countdown, tenant, priority, trace)
    answers[i] = {1, id}
  elseif known == digest then
    if job ~= id then
      redis.call('SET', ALIAS .. id, job, 'PX', ARGV[2])
      redis.call('SADD', ALIASES .. job, id)
    end
    answers[i] = {2, job}
  else
    if by_id then note(job, 'conflict', 'another request came under the id ' .. id .. ' and was refused') end
    answers[i] = {3, by_id and id or job}
  end
  -- The message of a key's conflict stays leased: the caller records the refusal under the message's own id next.
  if message ~= '' and (answers[i][1] ~= 3 or by_id) then
    redis.call('ZREM', IN_LEASED, message)
    redis.call('HDEL', IN_MESSAGES, message)
  end
end
write_tallies()
return cmsgpack.pack(answers)
