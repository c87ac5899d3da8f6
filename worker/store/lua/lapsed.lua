-- Lease jobs whose deadline has passed and that nothing else ends in time, so that they can be ended without a request.
-- One that was submitted is paid for, and may have a result: it is ended only if its provider is silent for more than a
-- minute after the deadline, or asked not to be polled before that. Otherwise it has its last poll.
-- Arguments  lease_ms, limit
-- Returns    array of {job id, fence}
local GRACE, LATER = 60000, 2000  -- ms: for the last poll; until the next look
local claims = {}

-- When something may be sent to a provider again.
local function silent_until(provider)
  local paused_until, suspended, open_until =
    get(GOVERNOR .. provider, governor_field.paused_until, governor_field.suspended, governor_field.open_until)
  if suspended then return math.huge end
  return math.max(tonumber(paused_until or 0), tonumber(open_until or 0))
end

for _, job_id in ipairs(call('ZRANGEBYSCORE', DEADLINES, '-inf', now, 'LIMIT', 0, arguments.limit)) do
  local key = JOB .. job_id
  local state, lane, fence, deadline, provider, not_before = get(
    key, job_field.state, job_field.lane, job_field.fence, job_field.deadline, job_field.provider, job_field.not_before)
  deadline = tonumber(deadline or 0)
  local is_open = state == 'queued' or state == 'waiting' or state == 'uncertain'
  if not is_open or deadline == 0 then
    call('ZREM', DEADLINES, job_id)
  elseif deadline > now then
    call('ZADD', DEADLINES, deadline, job_id)
  else
    local next_poll = math.max(silent_until(provider), tonumber(not_before or 0))
    local is_lapsed = state == 'queued' or state == 'waiting' and next_poll > math.max(now, deadline + GRACE)
    if is_lapsed and call('ZREM', DUE .. lane, job_id) == 1 then
      call('HSET', key, job_field.fence, fence + 1, job_field.claimed, fence + 1)
      call('ZADD', LEASED .. lane, now + arguments.lease_ms, job_id)
      claims[#claims + 1] = {job_id, fence + 1}
    end
    call('ZADD', DEADLINES, now + (state == 'uncertain' and GRACE or LATER), job_id)
  end
end
return cmsgpack.pack(claims)
