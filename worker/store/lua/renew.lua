-- Lengthen the leases of steps that are still running.
-- Arguments  lane, lease_ms (from now), claims (array of {work id, fence})
-- Returns    how many were still ours
local hash, field = hash_of(arguments.lane)
local ends, ours = now + arguments.lease_ms, 0
for _, claim in ipairs(arguments.claims) do
  local work_id, fence = unpack(claim)
  if tonumber(redis.call('HGET', hash .. work_id, field.fence)) == fence then
    ours = ours + redis.call('ZADD', LEASED .. arguments.lane, 'XX', 'CH', ends, work_id)
  end
end
return ours
