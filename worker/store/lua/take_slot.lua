-- Take a slot in the window of a provider's rate for a request that no lane was claimed for; `spent` says when it was over.
-- Arguments  provider, rate_limit (requests in a window), rate_window_ms, longest_ms (that the request may run), request
--            (its name)
-- Returns    1 taken, 0 there is none
local rate, kept_ms = RATE .. arguments.provider, arguments.rate_window_ms + arguments.longest_ms
call('ZREMRANGEBYSCORE', rate, '-inf', now - arguments.rate_window_ms)
if call('ZCARD', rate) >= arguments.rate_limit then return 0 end
call('ZADD', rate, now + arguments.longest_ms, arguments.request)
if call('PTTL', rate) < kept_ms then call('PEXPIRE', rate, kept_ms) end
return 1
