-- Lengthen the leases of steps that are still running.
-- Arguments  lane, lease_ms (from now), claims (array of {work id, fence})
-- Returns    how many were still ours
local hash = hash_of(arguments.lane)
local ends, ours = now + arguments.lease_ms, 0
for _, claim in ipairs(arguments.claims) do
  local work_id, fence = claim[1], claim[2]
  if tonumber(call('HGET', hash .. work_id, job_field.fence)) == fence then
    ours = ours + call('ZADD', LEASED .. arguments.lane, 'XX', 'CH', ends, work_id)
  end
end
return ours
