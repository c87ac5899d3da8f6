-- Put in front of every script. All times are milliseconds of Redis's own clock.
-- Uses     the key names of keys.py (JOB, DUE, …), the field names of fields.py (job_field.state, …), ARGV[1]
-- Gives    call (redis.call), arguments (what Python passed, by name), now, and the functions below
-- Found once here: a script looks these up hundreds of times, and a local variable costs less than a global one.
local call, unpack, tonumber = redis.call, unpack, tonumber
local arguments = cmsgpack.unpack(ARGV[1])
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local TIMELINE_MAX, DETAIL_MAX = 200, 300
-- Scores of due sets from here on are times. In submit lanes there are others: below 0 places in tenants' lines
-- (submits/lines.lua), from 0 on turns of release 0.2.0, one BAND for each priority.
local FIRST_TIME, BAND = 1e12, 1e10

-- Several fields of a hash, one value each: false where there is none.
local function get(key, ...) return unpack(call('HMGET', key, ...)) end

-- What a script counts for /metrics, and by minutes for the pages' charts; `write_tallies` ends each script that counts.
local tallies, charted = {}, {}
local MINUTE_KEPT = 90000  -- seconds: a day and an hour

local function tally(name, chart)
  tallies[name] = (tallies[name] or 0) + 1
  if chart then charted[chart] = (charted[chart] or 0) + 1 end
end

local function write_tallies()
  for name, number in pairs(tallies) do call('HINCRBY', STATS, name, number) end
  if not next(charted) then return end
  local minute = STAT .. math.floor(now / 60000)
  for name, number in pairs(charted) do call('HINCRBY', minute, name, number) end
  call('EXPIRE', minute, MINUTE_KEPT)
end

-- At most DETAIL_MAX bytes of a text, without half a character at the end.
local function shortened(text)
  if #text <= DETAIL_MAX then return text end
  return string.gsub(string.sub(text, 1, DETAIL_MAX - #'…'), '[\192-\255][\128-\191]*$', '') .. '…'
end

-- Append to a job's timeline; the newest entries are kept. Whoever waits for the job is woken (store/watch.py).
local function note(job_id, event, detail)
  tally('event:' .. event)
  local line = string.format('%.0f %s', now, event)
  if detail and detail ~= '' then line = line .. ' ' .. shortened(detail) end
  if call('RPUSH', TIMELINE .. job_id, line) > TIMELINE_MAX then
    call('LTRIM', TIMELINE .. job_id, -TIMELINE_MAX, -1)
  end
  call('PUBLISH', NOTED .. job_id, event)
end

-- Where an idempotency key leads to its job: each tenant has keys of its own. No tenant's name has a slash.
local function key_of(tenant, key)
  if not tenant then return IDEMPOTENCY .. key end
  return TENANT_KEY .. tenant .. '/' .. key
end

-- A target or a lane as a timeline shows it: of a URL only the host, since paths and queries may be secrets.
local function shown(target)
  return (string.gsub(target, '^(.*https?://[^/]+)/.+$', '%1/…', 1))
end

local function submit_lane(provider) return 'submit:' .. provider end
local function poll_lane(provider) return 'poll:' .. provider end
local function deliver_lane(target) return 'deliver:' .. target end
local function is_submit(lane) return string.sub(lane, 1, 7) == 'submit:' end

-- What stands in a lane, deliveries or jobs: the key of its hash without the id. Both have fences, claims and attempts,
-- which have the same codes.
local function hash_of(lane) return string.sub(lane, 1, 8) == 'deliver:' and DELIVERY or JOB end

local function job_of(delivery_id) return string.match(delivery_id, '^(.+)#%d+$') end

-- Make a job or a delivery due in a lane, and have somebody look there in time.
local function make_due(lane, work_id, at)
  call('ZADD', DUE .. lane, at, work_id)
  call('ZADD', LANES, 'LT', at, lane)
end

-- Take a job or a delivery out of the one place where it stands.
local function take_out(lane, work_id)
  if call('ZREM', LEASED .. lane, work_id) == 0 then call('ZREM', DUE .. lane, work_id) end
end

-- What a running step's request is called in the window of its provider's rate.
local function rate_entry(work_id, fence) return work_id .. ':' .. fence end

-- Whether nothing may be sent to a provider now: it asked for silence, a person paused it, or its breaker is open.
local function is_silenced(provider)
  if not provider then return false end
  local paused_until, suspended, open_until =
    get(GOVERNOR .. provider, governor_field.paused_until, governor_field.suspended, governor_field.open_until)
  return suspended or tonumber(paused_until or 0) > now or tonumber(open_until or 0) > now
end

-- Lengthen leases of a lane: `leases` are pairs of new end and id, `ended` the old ends. Whose lease ends with the probe's
-- is the probe of its provider's breaker: the next one waits until this lease ends.
local function lengthen(lane, provider, leases, ended)
  if #leases == 0 then return end
  call('ZADD', LEASED .. lane, 'XX', unpack(leases))
  local probe_until = provider and tonumber(call('HGET', GOVERNOR .. provider, governor_field.probe_until))
  if probe_until and ended[probe_until] then
    call('HSET', GOVERNOR .. provider, governor_field.probe_until, leases[1])
  end
end

-- Change a job's state and its place in the listing together. Nothing else changes a state, but the enqueue script,
-- which writes the first one.
local function set_state(job, state)
  tally('state:' .. job.provider .. ':' .. state, 'to:' .. state)
  call('HSET', JOB .. job.id, job_field.state, state)
  call('ZREM', INDEX .. job.provider .. ':' .. job.state, job.id)
  call('ZADD', INDEX .. job.provider .. ':' .. state, job.created, job.id)
  job.state = state
end

-- States of jobs that have not ended.
local OPEN = {queued = true, waiting = true, uncertain = true}

-- Count a job for its tenant as it stands now. It carries what was counted for it, so counts are exact however often, and
-- after whatever, this is called: what changed is added.
local JOB_BYTES = 1024  -- what a job takes beside its request and its result

local function account(job_id)
  local key = JOB .. job_id
  local tenant, state, counted_bytes, counted_open, webhook_bytes = get(
    key, job_field.tenant, job_field.state, job_field.counted_bytes, job_field.counted_open, job_field.webhook_bytes)
  if not tenant then return end
  local open = OPEN[state] and 1 or 0
  local bytes = JOB_BYTES + call('STRLEN', SPEC .. job_id) + call('STRLEN', RESULT .. job_id) + (webhook_bytes or 0)
  local more_open, more_bytes = open - (counted_open or 0), bytes - (counted_bytes or 0)
  if more_open == 0 and more_bytes == 0 then return end
  call('HSET', key, job_field.counted_bytes, bytes, job_field.counted_open, open)
  call('HINCRBY', USE .. tenant, use_field.open_jobs, more_open)
  call('HINCRBY', USE .. tenant, use_field.bytes, more_bytes)
end

-- Where it stands which job has an external id: a bucket and a field of fixed length, however long the provider's ids are.
local function place_of(provider, external_id)
  local hash = redis.sha1hex(external_id)
  return EXTERNAL .. provider .. ':' .. string.sub(hash, 1, 3), string.sub(hash, 4, 16)
end

-- Whether another job of this provider has the external id: its result would be that job's.
local function is_taken(job, external_id)
  if not external_id or external_id == '' then return false end
  local owner = call('HGET', place_of(job.provider, external_id))
  return owner and owner ~= job.id and call('HGET', JOB .. owner, job_field.external_id) == external_id
end

-- A job leaves its external id to others: it is purged, or gets another one.
local function leave_external_id(job_id, provider, external_id)
  local bucket, field = place_of(provider, external_id)
  if call('HGET', bucket, field) == job_id then call('HDEL', bucket, field) end
end

-- Give a job an external id that no other job has.
local function set_external_id(job, external_id)
  local bucket, field = place_of(job.provider, external_id)
  local before = call('HGET', JOB .. job.id, job_field.external_id)
  if before and before ~= external_id then leave_external_id(job.id, job.provider, before) end
  call('HSET', bucket, field, job.id)
  call('HSET', JOB .. job.id, job_field.external_id, external_id)
end

-- A submit's answer is lost, and a webhook named the external id: the job waits under it and is polled at once. A job that
-- is to be cancelled stays where it is and only gets the id, so that its provider can be notified. Returns the new lane;
-- nil too for an id that another job has: a person decides.
local function adopt(job, external_id)
  local key = JOB .. job.id
  call('HDEL', key, job_field.webhook_external_id)
  if is_taken(job, external_id) then
    note(job.id, 'warning', 'not adopted: another job has the external id ' .. external_id)
    return nil
  end
  call('HSET', key, job_field.submitted, now)
  if external_id ~= '' then set_external_id(job, external_id) end
  if call('HEXISTS', key, job_field.cancel_requested) == 1 then return nil end
  local lane = poll_lane(job.provider)
  take_out(job.lane, job.id)
  set_state(job, 'waiting')
  call('HSET', key, job_field.fence, job.fence + 1, job_field.lane, lane)
  call('HDEL', key, job_field.intent, job_field.attempts)
  make_due(lane, job.id, now)
  note(job.id, 'adopted', external_id)
  return lane
end
