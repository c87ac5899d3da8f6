-- Move producers' messages from their queue into the leased intake set, atomically; messages whose lease ended come again.
-- KEYS       2… the queue's lists, most urgent first (kombu keeps one list a priority)
-- Arguments  limit (of messages), lease_ms
-- Returns    flat array: ms since 1970 now, then name of message, bytes, …
local ends = now + arguments.lease_ms
local taken = {string.format('%.0f', now)}
local function take(name, bytes)
  call('ZADD', IN_LEASED, ends, name)
  taken[#taken + 1] = name
  taken[#taken + 1] = bytes
end
for _, name in ipairs(call('ZRANGEBYSCORE', IN_LEASED, '-inf', now, 'LIMIT', 0, arguments.limit)) do
  take(name, call('HGET', IN_MESSAGES, name) or '')
end
for i = 2, #KEYS do
  local room = arguments.limit - (#taken - 1) / 2
  if room > 0 then
    for _, bytes in ipairs(call('RPOP', KEYS[i], room) or {}) do
      local name = tostring(call('INCR', IN_SEQ))
      call('HSET', IN_MESSAGES, name, bytes)
      take(name, bytes)
    end
  end
end
return taken
