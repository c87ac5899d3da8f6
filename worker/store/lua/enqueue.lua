-- Record new jobs. Same id or idempotency key and same request: the same job. Another request: conflict.
-- Uses       the codes of codes.py (CREATED, SAME, CONFLICT, OVER_QUOTA), NORMAL_PRIORITY, line_up (submits/lines.lua)
-- Arguments  jobs (array of store.lanes.NewJob; a field that is absent has its default),
--            retention_ms (that an alias of a job is kept), quotas (store.quotas.QuotaLimits, if a job has a tenant)
-- Returns    array of {code, job id}; with CONFLICT, the job id is the given one if it is the id that clashes; with
--            OVER_QUOTA, in its place what is exceeded: "open LIMIT", "rate LIMIT SECONDS" or "bytes LIMIT"
-- States     (none) -> queued | failed | cancelled (its id was revoked before it came)
local answers = {}

-- The job that stands for this id already, its digest, and whether it is the id that led to it.
local function existing(id, tenant, key)
  local alias = call('GET', ALIAS .. id)
  local job_id = alias or id
  local digest = call('HGET', JOB .. job_id, job_field.digest)
  if digest then return job_id, digest, true end
  if alias then call('DEL', ALIAS .. id) end
  if not key then return nil end
  job_id = call('GET', key_of(tenant, key))
  if not job_id and tenant then  -- release 0.1.0 kept all keys together
    job_id = call('GET', IDEMPOTENCY .. key)
    if job_id and call('HGET', JOB .. job_id, job_field.tenant) ~= tenant then return nil end
  end
  if not job_id then return nil end
  return job_id, call('HGET', JOB .. job_id, job_field.digest)
end

-- What the tenants of these jobs take: read once, and written once, in `write_uses`.
local uses = {}
local this_minute = math.floor(now / 60000)

local function use_of(tenant)
  local use = uses[tenant]
  if use then return use end
  local open, bytes, minute, enqueued = get(
    USE .. tenant, use_field.open_jobs, use_field.bytes, use_field.minute, use_field.enqueued)
  use = {open = tonumber(open or 0), bytes = tonumber(bytes or 0), more_open = 0, more_bytes = 0}
  use.enqueued = tonumber(minute or 0) == this_minute and tonumber(enqueued) or 0
  uses[tenant] = use
  return use
end

-- What a new job of a tenant would exceed; nil if it may be created.
local function exceeded(job)
  local quotas = arguments.quotas
  if not (quotas and job.tenant) or job.error then return nil end
  local use, limit = use_of(job.tenant), quotas.jobs_per_minute
  if quotas.open_jobs and use.open + use.more_open >= quotas.open_jobs then return 'open ' .. quotas.open_jobs end
  if quotas.bytes and use.bytes + use.more_bytes + JOB_BYTES + #job.spec > quotas.bytes then
    return string.format('bytes %.0f', quotas.bytes)
  end
  if limit and use.enqueued >= limit then
    return string.format('rate %d %d', limit, 60 - math.floor(now / 1000) % 60)
  end
  return nil
end

-- Count a new job for its tenant, as `account` does for others.
local function account_new(job, open)
  local use, bytes = use_of(job.tenant), JOB_BYTES + #job.spec
  call('HSET', JOB .. job.id, job_field.tenant, job.tenant, job_field.counted_bytes, bytes, job_field.counted_open, open)
  use.more_open, use.more_bytes, use.enqueued = use.more_open + open, use.more_bytes + bytes, use.enqueued + 1
end

local function write_uses()
  for tenant, use in pairs(uses) do
    if use.more_bytes > 0 then
      call('HSET', USE .. tenant, use_field.minute, this_minute, use_field.enqueued, use.enqueued)
      call('HINCRBY', USE .. tenant, use_field.open_jobs, use.more_open)
      call('HINCRBY', USE .. tenant, use_field.bytes, use.more_bytes)
    end
  end
end

-- Another request came under a job's id. Only the first is an entry of its timeline: whoever knows the id could push out
-- all others. The rest are counted.
local function note_conflict(job_id, id)
  if call('HINCRBY', JOB .. job_id, job_field.conflicts, 1) > 1 then return tally('event:conflict') end
  note(job_id, 'conflict', 'another request came under the id ' .. id .. ' and was refused')
end

local function create(job)
  local id, provider, refused = job.id, job.provider, job.error
  local revoked = not refused and call('GET', REVOKED .. id)
  local key, ended = JOB .. id, refused or revoked
  local state, lane = 'queued', submit_lane(provider)
  if ended then state, lane = refused and 'failed' or 'cancelled', 'callback' end
  call('HSET', key, job_field.provider, provider, job_field.operation, job.operation, job_field.state, state,
             job_field.created, now, job_field.digest, job.digest, job_field.fence, 0, job_field.lane, lane)
  if job.deadline_ms then
    call('HSET', key, job_field.deadline, now + job.deadline_ms)
    if not ended then call('ZADD', DEADLINES, now + job.deadline_ms, id) end
  end
  call('SET', SPEC .. id, job.spec)
  if job.key then
    call('HSET', key, job_field.idempotency_key, job.key)
    call('SET', key_of(job.tenant, job.key), id)
  end
  call('ZADD', INDEX .. provider .. ':' .. state, now, id)
  call('SADD', PROVIDERS, provider)
  if refused then
    note(id, 'refused', refused)
  else
    note(id, 'enqueued')
    tally('accepted:' .. provider, 'accepted')
  end
  if revoked then
    note(id, 'cancelled', revoked)
    tally('state:' .. provider .. ':cancelled', 'to:cancelled')
  end
  if ended then
    call('SET', ERROR .. id, ended)
    call('HSET', key, job_field.ended, now)
  end
  if job.tenant then
    account_new(job, ended and 0 or 1)
    call('ZADD', TENANT .. job.tenant, now, id)
  end
  if job.trace then call('HSET', key, job_field.trace, job.trace) end
  if job.priority then call('HSET', key, job_field.priority, job.priority) end
  if ended then
    make_due(lane, id, now)
  elseif job.countdown_ms then
    make_due(lane, id, now + job.countdown_ms)
  else
    line_up(lane, id, job.tenant, job.priority or NORMAL_PRIORITY)
    call('ZADD', LANES, 'LT', now, lane)
  end
end

for i, job in ipairs(arguments.jobs) do
  local id = job.id
  local known_id, digest, by_id = existing(id, job.tenant, job.key)
  local excess = not digest and exceeded(job)
  if excess then
    answers[i] = {OVER_QUOTA, excess}
  elseif not digest then
    create(job)
    answers[i] = {CREATED, id}
  elseif digest == job.digest then
    if known_id ~= id then
      call('SET', ALIAS .. id, known_id, 'PX', arguments.retention_ms)
      call('SADD', ALIASES .. known_id, id)
    end
    answers[i] = {SAME, known_id}
  else
    if by_id then note_conflict(known_id, id) end
    answers[i] = {CONFLICT, by_id and id or known_id}
  end
  -- The message of a key's conflict, or over a quota, stays leased: the caller records the refusal under its id next.
  if job.message and not excess and (answers[i][1] ~= CONFLICT or by_id) then
    call('ZREM', IN_LEASED, job.message)
    call('HDEL', IN_MESSAGES, job.message)
    call('HDEL', IN_TAKES, job.message)
  end
end
write_uses()
write_tallies()
return cmsgpack.pack(answers)
