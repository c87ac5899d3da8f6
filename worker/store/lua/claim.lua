-- Lease due work of one lane, as much as may go now. First puts back what outlived its lease.
-- Uses       line_up_due, next_turns, reline (submits/turns.lua)
-- Arguments  lane, policy (store.lanes.LanePolicy; a limit that is absent is none)
-- Returns    msgpack array of claims, in the form that Celery's messages carry
-- States     queued -> uncertain, for a submit whose lease ended after its request may have left;
--            uncertain -> waiting, if a webhook has named its external id
local lane, policy = arguments.lane, arguments.policy
local provider, rate_limit, window_ms = policy.provider, policy.rate_limit, policy.rate_window_ms
local due, leased = DUE .. lane, LEASED .. lane
local hash = hash_of(lane)
local is_job = hash == JOB

-- The request of the lost worker may have left: its policy, or a webhook that came, decides.
local function doubt(job_id)
  local key = JOB .. job_id
  local provider_of, state, created, fence, external_id = get(
    key, job_field.provider, job_field.state, job_field.created, job_field.fence, job_field.webhook_external_id)
  local job = {id = job_id, provider = provider_of, state = state, created = created, fence = tonumber(fence), lane = lane}
  call('HDEL', key, job_field.intent)
  call('HINCRBY', key, job_field.submits, 1)
  set_state(job, 'uncertain')
  note(job_id, 'uncertain', 'the worker was lost after the request may have left')
  if external_id then adopt(job, external_id) end
end

-- Whoever held the lease may have sent a request until it ended, so the next one keeps its distance from there. A claim
-- that was never begun waited in a message for too long: nothing was sent, and it counts as no attempt.
local function put_back()
  local min_interval_ms = policy.min_interval_ms or 0
  local over = call('ZRANGEBYSCORE', leased, '-inf', now, 'WITHSCORES', 'LIMIT', 0, policy.batch)
  for i = 1, #over, 2 do
    local work_id, ended = over[i], tonumber(over[i + 1])
    call('ZREM', leased, work_id)
    local key = hash .. work_id
    local fence, claimed, intent = get(key, job_field.fence, job_field.claimed, job_field.intent)
    local subject = is_job and work_id or job_of(work_id)
    if fence and fence == claimed and not intent then
      call('ZADD', due, now, work_id)
      if provider then call('ZREM', RATE .. provider, rate_entry(work_id, fence)) end
      note(subject, 'lease-ended', shown(lane) .. ', not begun')
    elseif fence then
      call('HINCRBY', key, job_field.attempts, 1)
      call('ZADD', due, math.max(now, ended + min_interval_ms), work_id)
      if min_interval_ms > 0 then call('HSET', key, job_field.not_before, ended + min_interval_ms) end
      note(subject, 'lease-ended', shown(lane))
      if is_job and intent then doubt(work_id) end
    end
  end
end

-- How many the pause, the person or the breaker let through: none, one probe, or all; and when to look again.
local function gate()
  local paused_until, suspended, open_until, probe_until = get(
    GOVERNOR .. provider,
    governor_field.paused_until, governor_field.suspended, governor_field.open_until, governor_field.probe_until)
  if suspended then return 0, now + 2000 end
  if paused_until and tonumber(paused_until) > now then return 0, tonumber(paused_until) end
  if not open_until then return policy.batch, nil end
  if tonumber(open_until) > now then return 0, tonumber(open_until) end
  if probe_until and tonumber(probe_until) > now then return 0, now + 200 end
  return 1, now + 200
end

-- How many may go now beside `uncertain` ones, and when to look again if that is fewer than are due.
local function allowance(uncertain)
  local number, look_at = policy.batch, nil
  local function at_most(room, later)
    if room < number then number, look_at = room, later end
  end
  at_most(policy.cap - call('ZCARD', leased) - uncertain, now + 50)
  if not provider then return number, look_at end
  at_most(gate())
  if policy.in_flight then
    local running = call('ZCARD', LEASED .. submit_lane(provider)) + call('ZCARD', LEASED .. poll_lane(provider))
    at_most(policy.in_flight - running, now + 50)
  end
  if policy.jobs_in_flight then
    local jobs = call('ZCARD', INDEX .. provider .. ':waiting') + call('ZCARD', leased)
    at_most(policy.jobs_in_flight - jobs, now + 200)
  end
  if rate_limit then
    local rate = RATE .. provider
    call('ZREMRANGEBYSCORE', rate, '-inf', now - window_ms)
    local oldest = call('ZRANGE', rate, 0, 0, 'WITHSCORES')
    at_most(rate_limit - call('ZCARD', rate), oldest[2] and oldest[2] + window_ms + 1 or now + 50)
  end
  return math.max(number, 0), look_at
end

-- Raise a job's fence and read it; nil if it was purged. Returns the claim, in the order of model.jobs.Claim, and its fence.
-- A job that waited for its turn has been due since its countdown ended, or since it was created.
local function lease_job(work_id, due_at)
  local key = JOB .. work_id
  local old_fence, attempts, provider, operation, external_id, memo, state, created, submitted, deadline,
    provider_status, polled, trace, unknown_polls, unknown_since, expires, lined_up = unpack(call(
      'HMGET', key, job_field.fence, job_field.attempts, job_field.provider, job_field.operation, job_field.external_id,
      job_field.memo, job_field.state, job_field.created, job_field.submitted, job_field.deadline,
      job_field.provider_status, job_field.last_poll, job_field.trace,
      job_field.unknown_polls, job_field.unknown_since, job_field.expires, job_field.due))
  if not old_fence then return nil end
  local fence, created_ms = old_fence + 1, tonumber(created)
  local due_ms = due_at < FIRST_TIME and tonumber(lined_up or created) or due_at
  call('HSET', key, job_field.fence, fence, job_field.claimed, fence)
  local claim = {
    work_id, fence, provider, operation, external_id or '', memo or '', state, tonumber(attempts) or 0, created_ms,
    tonumber(submitted) or 0, tonumber(deadline) or 0, provider_status or '', tonumber(polled) or 0, due_ms, trace or '',
    tonumber(unknown_polls) or 0, tonumber(unknown_since) or 0, tonumber(expires) or 0,
  }
  return claim, fence
end

-- The same for a delivery, of which a step reads less.
local function lease_delivery(work_id, due_ms)
  local key = DELIVERY .. work_id
  local old_fence, attempts = get(key, delivery_field.fence, delivery_field.attempts)
  if not old_fence then return nil end
  local provider, operation, trace =
    get(JOB .. job_of(work_id), job_field.provider, job_field.operation, job_field.trace)
  local fence, external_id, memo, state, provider_status = old_fence + 1, '', '', '', ''
  local created, submitted, deadline, polled, unknown_polls, unknown_since, expires = 0, 0, 0, 0, 0, 0, 0
  call('HSET', key, delivery_field.fence, fence, delivery_field.claimed, fence)
  local claim = {
    work_id, fence, provider or '', operation or '', external_id, memo, state, tonumber(attempts) or 0, created,
    submitted, deadline, provider_status, polled, due_ms, trace or '', unknown_polls, unknown_since,
    expires,
  }
  return claim, fence
end

-- Which work goes now, each with its score: as much as `number`.
local function next_due(number)
  if is_submit(lane) then return next_turns(lane, number) end
  return call('ZRANGEBYSCORE', due, '-inf', now, 'WITHSCORES', 'LIMIT', 0, number)
end

-- Submits and polls of one rate share it by turns.
local function other_lane_has_due_work()
  local other = is_submit(lane) and poll_lane(provider) or submit_lane(provider)
  return #call('ZRANGEBYSCORE', DUE .. other, '-inf', now, 'LIMIT', 0, 1) > 0
end

-- Whoever went last leaves the next place to the other. That one may be stopped for reasons of its own, so not for ever.
local function take_turns(number)
  local governor = GOVERNOR .. provider
  local went_last = call('HGET', governor, governor_field.last_lane) == lane
  if went_last and call('HINCRBY', governor, governor_field.turns_yielded, 1) < 6 then return 0 end
  call('HSET', governor, governor_field.last_lane, lane, governor_field.turns_yielded, 0)
  return math.ceil(number / 2)
end

local claims, stamps, moved = {}, {}, {}

-- Lease what was chosen, work and its scores. With `sends` each takes a place in the rate. Returns how many there were.
local function lease_all(chosen, ends, sends)
  local lease, before = is_job and lease_job or lease_delivery, #claims
  for i = 1, #chosen, 2 do
    local work_id = chosen[i]
    moved[#moved + 1] = work_id
    local claim, fence = lease(work_id, tonumber(chosen[i + 1]))
    if claim then
      claims[#claims + 1] = claim
      stamps[#stamps + 1] = ends
      stamps[#stamps + 1] = work_id
      if sends and rate_limit then call('ZADD', RATE .. provider, ends, rate_entry(work_id, fence)) end
    end
  end
  return #claims - before
end

put_back()
local uncertain, more = {}, false
if is_submit(lane) then uncertain, more = line_up_due(lane) end
local room = math.max(0, math.min(policy.batch, policy.cap - call('ZCARD', leased)))
more = more or #uncertain > 2 * room
uncertain = {unpack(uncertain, 1, 2 * room)}
local number, look_at = allowance(#uncertain / 2)
if rate_limit and number > 0 and number < policy.batch and other_lane_has_due_work() then
  number = take_turns(number)
  look_at = now + 50
end
local ends = now + policy.lease_ms
-- Nothing is sent for an uncertain job: no gate, rate or turn holds it. Its lease does not end with the probe's, which is
-- known by that.
lease_all(uncertain, ends + 1, false)
local chosen = number > 0 and next_due(number) or {}
local sent = lease_all(chosen, ends, true)
-- Behind an open breaker this claim is the probe: nothing else goes until it is known, or its lease ends.
if provider and sent > 0 and call('HEXISTS', GOVERNOR .. provider, governor_field.open_until) == 1 then
  call('HSET', GOVERNOR .. provider, governor_field.probe_until, ends)
end
if #moved > 0 then call('ZREM', due, unpack(moved)) end
if #stamps > 0 then call('ZADD', leased, unpack(stamps)) end
if rate_limit then call('PEXPIRE', RATE .. provider, window_ms + policy.lease_ms) end

-- When this lane must be looked at next: work left over, the next countdown, or the next lease that may end.
if is_submit(lane) and #chosen < 2 * number then reline(lane) end
local first = call('ZRANGE', due, 0, 0, 'WITHSCORES')
local ending = call('ZRANGE', leased, 0, 0, 'WITHSCORES')
local at = first[2] and tonumber(first[2])
if not at then call('DEL', LINES .. lane, TURNS .. lane, FAIR .. lane) end
if at and at <= now then at = not more and look_at or now end
if ending[2] and (not at or tonumber(ending[2]) < at) then at = tonumber(ending[2]) end
if at and at ~= math.huge then
  call('ZADD', LANES, at, lane)
else
  call('ZREM', LANES, lane)
end
write_tallies()
return cmsgpack.pack(claims)
