-- Put aside a taken-in message that can be no job, with the reason; the newest are kept.
-- Arguments  message (its name), parked (reason and message as JSON), limit (of messages that are kept)
redis.call('LPUSH', IN_REFUSED, arguments.parked)
redis.call('LTRIM', IN_REFUSED, 0, arguments.limit - 1)
redis.call('ZREM', IN_LEASED, arguments.message)
redis.call('HDEL', IN_MESSAGES, arguments.message)
return 1
