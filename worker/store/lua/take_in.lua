-- Move producers' messages from their queue into the leased intake set, atomically; messages whose lease ended come again.
-- KEYS       2… the queue's lists, most urgent first (kombu keeps one list a priority)
-- Arguments  limit (of messages), message_max (bytes of one), kept (bytes of a larger one), room (bytes of all: the last
--            one may exceed it), lease_ms, harmless (array of messages whose ended leases no longer count)
-- Returns    flat array: ms since 1970 now, whether more may wait (1 or 0), then name, bytes, whole length and ended leases
--            of each message
local taken = {string.format('%.0f', now), 0}
local size = 0
local function take(name, bytes, length, takes)
  call('ZADD', IN_LEASED, now + arguments.lease_ms, name)
  taken[#taken + 1] = name
  taken[#taken + 1] = bytes
  taken[#taken + 1] = length
  taken[#taken + 1] = takes
  size = size + #bytes
end
for _, name in ipairs(arguments.harmless) do call('HDEL', IN_TAKES, name) end
-- Whoever had this one is dead or stood still, perhaps because of it. It comes by itself: no other is counted with it.
local again = call('ZRANGEBYSCORE', IN_LEASED, '-inf', now, 'LIMIT', 0, 1)[1]
if again then
  local bytes = call('HGET', IN_MESSAGES, again) or ''
  take(again, bytes, #bytes, call('HINCRBY', IN_TAKES, again, 1))
  taken[2] = 1
  return taken
end
local count = 0
for i = 2, #KEYS do
  while count < arguments.limit and size < arguments.room do
    local bytes = call('RPOP', KEYS[i])
    if not bytes then break end
    local length = #bytes
    if length > arguments.message_max then bytes = string.sub(bytes, 1, arguments.kept) end
    local name = tostring(call('INCR', IN_SEQ))
    call('HSET', IN_MESSAGES, name, bytes)
    take(name, bytes, length, 0)
    count = count + 1
  end
end
if count >= arguments.limit or size >= arguments.room then taken[2] = 1 end
return taken
