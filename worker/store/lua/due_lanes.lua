-- Which lanes have something to do now, and how long until the next one has.
-- Arguments  limit (of lanes)
-- Returns    {array of lanes, ms until the next one has something to do, or -1}
local lanes = call('ZRANGEBYSCORE', LANES, '-inf', now, 'LIMIT', 0, arguments.limit)
local next_lane = call('ZRANGEBYSCORE', LANES, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
local wait_ms = -1
if next_lane[2] and next_lane[2] ~= 'inf' then wait_ms = math.max(0, next_lane[2] - now) end
return cmsgpack.pack({lanes, wait_ms})
