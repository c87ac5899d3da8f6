-- Lease jobs whose deadline has passed and that nothing else ends in time, so that they can be ended without a request:
-- their provider is silenced, asked for a later poll, or its rate and its lanes have no place for them.
-- Arguments  lease_ms, limit
-- Returns    array of {job id, fence}
local PATIENCE, LATER = 60000, 2000  -- ms: a submitted job may have its last poll first; until the next look
local claims = {}
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
    local is_kept = is_silenced(provider) or tonumber(not_before or 0) > now
    local is_lapsed = state == 'queued' or state == 'waiting' and (is_kept or deadline + PATIENCE < now)
    if is_lapsed and call('ZREM', DUE .. lane, job_id) == 1 then
      call('HSET', key, job_field.fence, fence + 1, job_field.claimed, fence + 1)
      call('ZADD', LEASED .. lane, now + arguments.lease_ms, job_id)
      claims[#claims + 1] = {job_id, fence + 1}
    end
    call('ZADD', DEADLINES, now + (state == 'uncertain' and PATIENCE or LATER), job_id)
  end
end
return cmsgpack.pack(claims)
