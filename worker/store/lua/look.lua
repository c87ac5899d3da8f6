-- Which lanes have something to do now, and how long until the next one has.
-- ARGV[1]  how many lanes at most
-- Returns  {array of lanes, ms until the next look or -1}
local lanes = redis.call('ZRANGEBYSCORE', LANES, '-inf', now, 'LIMIT', 0, ARGV[1])
local next_one = redis.call('ZRANGEBYSCORE', LANES, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
local wait = -1
if next_one[2] and next_one[2] ~= 'inf' then wait = math.max(0, next_one[2] - now) end
return cmsgpack.pack({lanes, wait})
