-- The verbs of jobs: from the submit to the end, and what people decide.
-- Uses     arguments.retention_ms; the codes of codes.py (WRITTEN, …); due_now (record/admission.lua)
-- Gives    verbs, NO_FENCE, load_job, close, adopt_if_named, flush
local TOOK_MAX = 200  -- jobs of one operation whose durations are kept
local NO_FENCE = -1
local verbs = {}
local healthy = {}  -- providers that answered as they should: their breakers close

-- The job if this fence may write it, else nil and the code that says why not. NO_FENCE speaks for nobody's lease: a
-- webhook, a person.
local function load_job(job_id, fence)
  local stored_fence, state, provider, created, lane = get(
    JOB .. job_id, job_field.fence, job_field.state, job_field.provider, job_field.created, job_field.lane)
  if not stored_fence then return nil, UNKNOWN end
  stored_fence = tonumber(stored_fence)
  if fence ~= NO_FENCE and stored_fence ~= fence then return nil, REFUSED end
  return {id = job_id, state = state, provider = provider, created = created, lane = lane, fence = stored_fence}
end

local probes = {}  -- by provider: when the lease of its breaker's probe ends, false if there is none

-- Leave the present lane. A probe that ends here gives its place back: the next one goes at once, unless what this one met
-- closes the breaker or opens it again. Many a claim sends nothing, and 40 uncertain jobs were 40 probes.
local function leave(job)
  local governor, lane = GOVERNOR .. job.provider, job.lane
  if probes[job.provider] == nil then
    probes[job.provider] = tonumber(call('HGET', governor, governor_field.probe_until)) or false
  end
  local probe_until = probes[job.provider]
  if probe_until and tonumber(call('ZSCORE', LEASED .. lane, job.id)) == probe_until then
    call('HDEL', governor, governor_field.probe_until)
    probes[job.provider] = false
    call('ZADD', LANES, 'XX', 'LT', now, submit_lane(job.provider), now, poll_lane(job.provider))
  end
  take_out(lane, job.id)
end

-- Leave the present lane and become due in another (or the same) one. The fence is raised: an outcome counts once.
-- More fields and their values may follow, to be written together.
local function move(job, lane, at, ...)
  leave(job)
  job.fence = job.fence + 1
  call('HSET', JOB .. job.id, job_field.fence, job.fence, job_field.lane, lane, ...)
  if job.lane ~= lane then call('HDEL', JOB .. job.id, job_field.intent, job_field.attempts) end
  job.lane = lane
  make_due(lane, job.id, at)
  if at <= now then due_now[lane] = true end
end

-- Add an outcome's requests to the job's ledger.
local function count(job, outcome)
  local key = JOB .. job.id
  if (outcome.submits or 0) > 0 then call('HINCRBY', key, job_field.submits, outcome.submits) end
  if (outcome.polls or 0) > 0 then call('HINCRBY', key, job_field.polls, outcome.polls) end
  if (outcome.fetches or 0) > 0 then call('HINCRBY', key, job_field.fetches, outcome.fetches) end
end

local function note_status(job, status)
  if not status or call('HGET', JOB .. job.id, job_field.provider_status) == status then return end
  call('HSET', JOB .. job.id, job_field.provider_status, status)
  note(job.id, 'status', status)
end

-- A job is closed when none of its deliveries is open; it is purged after its retention.
local function close(job_id)
  call('HSET', JOB .. job_id, job_field.closed, now)
  call('ZADD', CLOSED, now + arguments.retention_ms, job_id)
  note(job_id, 'closed')
end

local function finish(job, state, detail)
  set_state(job, state)
  call('ZREM', DEADLINES, job.id)
  call('HDEL', JOB .. job.id, job_field.intent, job_field.attempts, job_field.cancel_requested,
             job_field.webhook_external_id)
  note(job.id, state, detail)
  move(job, 'callback', now, job_field.ended, now)
  account(job.id)
  return WRITTEN
end

-- Whether somebody gave the job up while its submit was on its way; then it ends now.
local function cancel_if_requested(job)
  if call('HEXISTS', JOB .. job.id, job_field.cancel_requested) == 0 then return false end
  finish(job, 'cancelled')
  return true
end

-- Whether a webhook named the external id before anybody knew the submit's answer: then the job waits under it.
local function adopt_if_named(job)
  local external_id = call('HGET', JOB .. job.id, job_field.webhook_external_id)
  local lane = external_id and adopt(job, external_id)
  if lane then due_now[lane] = true end
  return lane
end

-- A webhook proves that the provider has a job of which we know no more: it is neither submitted again nor given up,
-- whatever an answer or the policy says. Adopted if the webhook named its external id, else left to a person. Nil: there
-- is no such proof.
local function keep_if_proven(job, fence, reason)
  if fence == NO_FENCE or job.state == 'waiting' then return nil end
  local webhook_ended, external_id = get(JOB .. job.id, job_field.webhook_ended, job_field.webhook_external_id)
  if not (webhook_ended or external_id) then return nil end
  if job.state == 'queued' then return verbs.uncertain({work_id = job.id, fence = fence, reason = reason}) end
  return verbs.hold({work_id = job.id, fence = fence, reason = 'the provider has it'})
end

-- The answer of a submit whose lease had ended, as long as nobody has decided otherwise: Redis took no writes for longer
-- than the lease, say. The job has been paid for under this id, so it is neither held nor sent again. Nil: decided.
local function adopt_late(outcome)
  local job = load_job(outcome.work_id, NO_FENCE)
  local is_undecided = job.state == 'uncertain' or job.state == 'queued'
  if not is_undecided or call('HEXISTS', JOB .. job.id, job_field.intent) == 1 then return nil end
  if is_taken(job, outcome.external_id) then return nil end
  -- The claim script counted the submit when the lease ended; a Redis that has forgotten the submit has not.
  local counted = call('HEXISTS', JOB .. job.id, job_field.submits) == 1
  count(job, {fetches = outcome.fetches, submits = not counted and outcome.submits})
  if outcome.memo then call('HSET', JOB .. job.id, job_field.memo, outcome.memo) end
  local lane = adopt(job, outcome.external_id)
  if lane then due_now[lane] = true end
  cancel_if_requested(job)
  return WRITTEN
end

-- Leave the present lane for a person: due at no time, so that the job still stands in exactly one place.
local function set_aside(job)
  local lane = 'held:' .. job.provider
  leave(job)
  call('HSET', JOB .. job.id, job_field.fence, job.fence + 1, job_field.lane, lane)
  call('ZADD', DUE .. lane, '+inf', job.id)
end

-- The provider answered a submit with the external id of another job. What it has for that id is not this job's to have,
-- and whether it took this one nobody knows: it stays for a person, whatever the policy is.
local function hold_unnamed(job, outcome)
  count(job, outcome)
  if job.state ~= 'uncertain' then set_state(job, 'uncertain') end
  local reason = 'the provider answered with the external id of another job, ' .. outcome.external_id
  note(job.id, 'uncertain', reason)
  call('HDEL', JOB .. job.id, job_field.webhook_external_id)
  call('HDEL', JOB .. job.id, job_field.intent)
  if cancel_if_requested(job) then return WRITTEN end
  set_aside(job)
  note(job.id, 'held', 'a person decides')
  return WRITTEN
end

function verbs.submitted(outcome)
  local job, why = load_job(outcome.work_id, outcome.fence)
  local external_id, countdown_ms = outcome.external_id, outcome.countdown_ms
  if not job then
    local adopted = why == REFUSED and adopt_late(outcome)
    if adopted then return adopted end
    -- Whoever decides about the job wants to know what a worker learnt whose lease had ended.
    local key = JOB .. outcome.work_id
    local stale = why == REFUSED and call('HGET', key, job_field.external_id) ~= external_id
    if stale then note(outcome.work_id, 'too-late', 'submitted as ' .. external_id) end
    return why
  end
  if not OPEN[job.state] then return REFUSED end
  if is_taken(job, external_id) then return hold_unnamed(job, outcome) end
  local key = JOB .. job.id
  local webhook_ended, webhook_external_id = get(key, job_field.webhook_ended, job_field.webhook_external_id)
  if external_id == '' then external_id = webhook_external_id or '' end
  if webhook_external_id and webhook_external_id ~= external_id then
    call('HDEL', key, job_field.webhook_ended)
    note(job.id, 'warning', 'a webhook named another external id: ' .. webhook_external_id)
  elseif webhook_ended then
    countdown_ms = outcome.not_before_ms or 0
  end
  count(job, outcome)
  set_state(job, 'waiting')
  call('HDEL', key, job_field.intent, job_field.attempts, job_field.webhook_external_id, job_field.expiry_warned,
             job_field.expires)
  move(job, poll_lane(job.provider), now + countdown_ms, job_field.submitted, now)
  if external_id ~= '' then set_external_id(job, external_id) end
  if outcome.memo then call('HSET', key, job_field.memo, outcome.memo) end
  if outcome.not_before_ms then call('HSET', key, job_field.not_before, now + outcome.not_before_ms) end
  note(job.id, 'submitted', external_id == '' and 'the provider named no external id: its webhook is awaited')
  healthy[job.provider] = true
  cancel_if_requested(job)
  return WRITTEN
end

-- The hot path: what most polls record. The lane's sorted sets are written once for the whole batch, in `flush`.
local rescheduled = {}

function verbs.wait(outcome)
  local job_id, countdown_ms = outcome.work_id, outcome.countdown_ms
  local key = JOB .. job_id
  local fence, state, lane, polls, status, attempts, provider, webhook_ended = unpack(call(
    'HMGET', key, job_field.fence, job_field.state, job_field.lane, job_field.polls, job_field.provider_status,
    job_field.attempts, job_field.provider, job_field.webhook_ended))
  if not fence then return UNKNOWN end
  local stale = outcome.fence ~= NO_FENCE and tonumber(fence) ~= outcome.fence
  if stale or not OPEN[state] then return REFUSED end
  call('HSET', key, job_field.fence, fence + 1, job_field.polls, (polls or 0) + outcome.polls,
             job_field.last_poll, now)
  if outcome.fetches then call('HINCRBY', key, job_field.fetches, outcome.fetches) end
  if outcome.memo then call('HSET', key, job_field.memo, outcome.memo) end
  if attempts then call('HDEL', key, job_field.attempts) end
  if outcome.status ~= '' and outcome.status ~= status then
    call('HSET', key, job_field.provider_status, outcome.status)
    note(job_id, 'status', outcome.status)
  end
  if outcome.warning then note(job_id, 'warning', outcome.warning) end
  if outcome.expires_ms then call('HSET', key, job_field.expires, outcome.expires_ms) end
  if outcome.expiry_warning and call('HSETNX', key, job_field.expiry_warned, 1) == 1 then
    note(job_id, 'warning', outcome.expiry_warning)
  end
  if outcome.webhook_countdown_ms then
    call('HSET', key, job_field.not_before, now + outcome.webhook_countdown_ms)
    if webhook_ended then countdown_ms = outcome.webhook_countdown_ms end
  end
  local batch = rescheduled[lane] or {due = {}, ids = {}, first = math.huge}
  rescheduled[lane] = batch
  batch.due[#batch.due + 1] = now + countdown_ms
  batch.due[#batch.due + 1] = job_id
  batch.ids[#batch.ids + 1] = job_id
  batch.first = math.min(batch.first, now + countdown_ms)
  if outcome.polls > 0 then healthy[provider] = true end
  return WRITTEN
end

local function flush()
  for provider in pairs(healthy) do
    local governor = GOVERNOR .. provider
    if call('HEXISTS', governor, governor_field.outages) == 1 then
      call('HDEL', governor, governor_field.outages, governor_field.open_until, governor_field.times_opened,
                 governor_field.open_reason, governor_field.probe_until)
    end
  end
  for lane, batch in pairs(rescheduled) do
    call('ZREM', LEASED .. lane, unpack(batch.ids))
    call('ZADD', DUE .. lane, unpack(batch.due))
    call('ZADD', LANES, 'LT', batch.first, lane)
    if batch.first <= now then due_now[lane] = true end
  end
end

function verbs.retry(outcome)
  local job, why = load_job(outcome.work_id, outcome.fence)
  if not job then return why end
  count(job, outcome)
  if cancel_if_requested(job) then return WRITTEN end
  local kept = keep_if_proven(job, outcome.fence, outcome.reason)
  if kept then return kept end
  local key, at = JOB .. job.id, now + outcome.countdown_ms
  if outcome.attempt > 0 then call('HINCRBY', key, job_field.attempts, outcome.attempt) end
  call('HDEL', key, job_field.intent)
  if outcome.unknown_polls then
    call('HSET', key, job_field.unknown_polls, outcome.unknown_polls)
    if outcome.unknown_polls == 1 then call('HSET', key, job_field.unknown_since, now) end
  end
  if job.state == 'uncertain' then set_state(job, 'queued') end
  if job.state == 'waiting' then call('HSET', key, job_field.not_before, at) end
  move(job, job.lane, at)
  note(job.id, 'retry', outcome.reason)
  return WRITTEN
end

function verbs.release(outcome)
  local job, why = load_job(outcome.work_id, outcome.fence)
  if not job then return why end
  local key, fence = JOB .. job.id, outcome.fence
  if cancel_if_requested(job) then return WRITTEN end
  call('HDEL', key, job_field.intent)
  call('ZREM', RATE .. job.provider, rate_entry(job.id, fence), rate_entry(job.id, fence - 1))
  move(job, job.lane, now)
  return WRITTEN
end

function verbs.uncertain(outcome)
  local job, why = load_job(outcome.work_id, outcome.fence)
  if not job then return why end
  if job.state ~= 'queued' and job.state ~= 'uncertain' then return REFUSED end
  count(job, outcome)
  set_state(job, 'uncertain')
  call('HDEL', JOB .. job.id, job_field.intent)
  note(job.id, 'uncertain', outcome.reason)
  if not adopt_if_named(job) then move(job, job.lane, now) end
  return WRITTEN
end

-- A worker remembers a submit that has left, and this Redis may be older than that: another one was the master. What it
-- does not know of becomes uncertain, never new.
function verbs.begun(outcome)
  local job, why = load_job(outcome.work_id, NO_FENCE)
  if not job then return why end
  if job.state ~= 'queued' or call('HEXISTS', JOB .. job.id, job_field.intent) == 1 then return WRITTEN end
  count(job, {submits = 1})
  set_state(job, 'uncertain')
  note(job.id, 'uncertain', 'its submit had left when another Redis became the master')
  if not adopt_if_named(job) then move(job, job.lane, now) end
  return WRITTEN
end

function verbs.hold(outcome)
  local job, why = load_job(outcome.work_id, outcome.fence)
  if not job then return why end
  if job.state ~= 'uncertain' then return REFUSED end
  if cancel_if_requested(job) then return WRITTEN end
  if adopt_if_named(job) then return WRITTEN end  -- a worker of the release before did not see to it
  local reason = outcome.reason
  set_aside(job)
  if call('HEXISTS', JOB .. job.id, job_field.webhook_ended) == 1 then
    reason = reason .. '; a webhook said that it ended'
  end
  note(job.id, 'held', reason)
  return WRITTEN
end

-- How long the job took. A poll finds that it ended some time since the poll before (or the submit): the middle counts,
-- or what is learnt would grow with every interval that is learnt from it. A webhook comes at once; of one that came before
-- the submit's answer nothing can be learnt.
local function learn(job, fence)
  local operation, submitted, last_poll, webhook_ended, repolls = get(
    JOB .. job.id, job_field.operation, job_field.submitted, job_field.last_poll, job_field.webhook_ended,
    job_field.repolls)
  if not submitted or repolls then return end
  if webhook_ended and tonumber(webhook_ended) <= tonumber(last_poll or 0) then
    webhook_ended = false  -- a poll has found it untrue
  end
  local took = (webhook_ended or now) - submitted
  if took <= 0 then return end
  local unseen = (webhook_ended or fence == NO_FENCE) and 0 or last_poll and now - last_poll or took
  local key = TOOK .. job.provider .. ':' .. operation
  call('LPUSH', key, math.floor(took - unseen / 2))
  call('LTRIM', key, 0, TOOK_MAX - 1)
end

verbs['end'] = function(outcome)
  local job, why = load_job(outcome.work_id, outcome.fence)
  if not job then return why end
  local state, error = outcome.state, outcome.error
  if not OPEN[job.state] then
    note(job.id, 'too-late', state)
    return REFUSED
  end
  count(job, outcome)
  local kept = state == 'failed' and keep_if_proven(job, outcome.fence, error)
  if kept then return kept end
  note_status(job, outcome.status)
  if outcome.warning then note(job.id, 'warning', outcome.warning) end
  if outcome.external_id and not is_taken(job, outcome.external_id) then set_external_id(job, outcome.external_id) end
  if error then call('SET', ERROR .. job.id, error) else call('DEL', ERROR .. job.id) end
  if outcome.result then call('SET', RESULT .. job.id, outcome.result) end
  if state == 'succeeded' then
    healthy[job.provider] = true
    learn(job, outcome.fence)
  end
  return finish(job, state, error)
end

-- Somebody gives the job up. While its submit is on its way that only can be asked for: the answer must be known first.
-- With `remember_ms` the id may come as a job later, which is then cancelled from the start.
function verbs.cancel(outcome)
  local id = call('GET', ALIAS .. outcome.work_id) or outcome.work_id
  local job, why = load_job(id, NO_FENCE)
  if not job and outcome.remember_ms then
    call('SET', REVOKED .. id, outcome.error, 'PX', outcome.remember_ms)
    return WRITTEN
  end
  if not job then return why end
  if not OPEN[job.state] then return REFUSED end
  call('SET', ERROR .. job.id, outcome.error)
  if call('HEXISTS', JOB .. job.id, job_field.intent) == 0 then return finish(job, 'cancelled', outcome.error) end
  if call('HSET', JOB .. job.id, job_field.cancel_requested, 1) == 1 then
    note(job.id, 'cancel-asked', 'its submit is on its way')
  end
  return CANCEL_PENDING
end

-- A person decides about an uncertain job. `detail` is the external id, or the error as JSON.
function verbs.resolve(outcome)
  local job, why = load_job(outcome.work_id, NO_FENCE)
  if not job then return why end
  if job.state ~= 'uncertain' then return REFUSED end
  local choice, detail = outcome.choice, outcome.detail
  if choice == 'submitted-as' and is_taken(job, detail) then return TAKEN end
  note(job.id, 'resolved', detail and choice .. ' ' .. detail or choice)
  if choice == 'as-webhook' then return verbs['end'](outcome.end_outcome) end
  if choice == 'fail' then
    call('SET', ERROR .. job.id, detail)
    return finish(job, 'failed')
  end
  if choice == 'resubmit' then
    set_state(job, 'queued')
    move(job, submit_lane(job.provider), now)
    call('HDEL', JOB .. job.id, job_field.attempts, job_field.webhook_ended)
  else
    set_state(job, 'waiting')
    set_external_id(job, detail)
    move(job, poll_lane(job.provider), now, job_field.submitted, now)
  end
  return WRITTEN
end
