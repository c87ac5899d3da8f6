-- Lengthen the leases of steps that are still running.
-- ARGV     1 lane, 2 lease ms from now, 3 'job' or 'delivery', 4 msgpack array of {item, fence}
-- Returns  how many were still ours
local lane, hash = ARGV[1], ARGV[3] == 'job' and JOB or DELIVERY
local ends, ours = now + tonumber(ARGV[2]), 0
for _, pair in ipairs(cmsgpack.unpack(ARGV[4])) do
  if tonumber(redis.call('HGET', hash .. pair[1], 'f')) == pair[2] then
    ours = ours + redis.call('ZADD', LEASED .. lane, 'XX', 'CH', ends, pair[1])
  end
end
return ours
