-- Take a place in a rate group's window for a request that no lane was claimed for; `spent` says when it was over.
-- ARGV     1 rate group, 2 requests in a window, 3 window ms, 4 ms that it runs at most, 5 name of the request
-- Returns  1 taken, 0 there is none
local rate, limit, window, longest = RATE .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('ZREMRANGEBYSCORE', rate, '-inf', now - window)
if redis.call('ZCARD', rate) >= limit then return 0 end
redis.call('ZADD', rate, now + longest, ARGV[5])
if redis.call('PTTL', rate) < window + longest then redis.call('PEXPIRE', rate, window + longest) end
return 1
