-- Put aside a taken-in message that can be no job, with the reason; the newest are kept.
-- ARGV     1 name of message, 2 reason and message as JSON, 3 how many are kept
redis.call('LPUSH', IN_REFUSED, ARGV[2])
redis.call('LTRIM', IN_REFUSED, 0, ARGV[3] - 1)
redis.call('ZREM', IN_LEASED, ARGV[1])
redis.call('HDEL', IN_MESSAGES, ARGV[1])
return 1
