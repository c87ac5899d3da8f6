-- Lease what stands in a lane that no worker serves and whose deadline has passed, so that it can be ended. Nothing is
-- sent for it, so no limit applies. Looks at a part of the lane; the lane stays one that nobody has looked at.
-- Arguments  lane, lease_ms, offset (rank of the first that is looked at), limit
-- Returns    {array of {job id, fence}, the next offset (0: from the start again), leases that ended and wait for claim}
local lane, offset, limit = arguments.lane, arguments.offset, arguments.limit
local due, leased = DUE .. lane, LEASED .. lane
local ids = call('ZRANGE', due, offset, offset + limit - 1)
local claims = {}
for _, job_id in ipairs(ids) do
  local key = JOB .. job_id
  local fence, state, deadline = get(key, job_field.fence, job_field.state, job_field.deadline)
  if deadline and tonumber(deadline) <= now and (state == 'queued' or state == 'waiting') then
    call('HSET', key, job_field.fence, fence + 1, job_field.claimed, fence + 1)
    call('ZREM', due, job_id)
    call('ZADD', leased, now + arguments.lease_ms, job_id)
    claims[#claims + 1] = {job_id, fence + 1}
  end
end
local after = #ids < limit and 0 or offset + limit - #claims
return cmsgpack.pack({claims, after, call('ZCOUNT', leased, '-inf', now)})
