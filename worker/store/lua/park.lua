-- Put aside a taken-in message that can be no job, with the reason; the newest are kept.
-- Arguments  message (its name), parked (reason and message as JSON), limit (of messages that are kept)
-- Returns    1
call('LPUSH', IN_REFUSED, arguments.parked)
call('LTRIM', IN_REFUSED, 0, arguments.limit - 1)
call('ZREM', IN_LEASED, arguments.message)
call('HDEL', IN_MESSAGES, arguments.message)
call('HDEL', IN_TAKES, arguments.message)
return 1
