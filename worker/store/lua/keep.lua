-- Keep results where producers' AsyncResult looks, and tell those who wait there (Celery's Redis backend does the same).
-- KEYS     2… the result keys
-- ARGV     1 seconds that each is kept, 2… the encoded results
for i = 2, #KEYS do
  redis.call('SET', KEYS[i], ARGV[i], 'EX', ARGV[1])
  redis.call('PUBLISH', KEYS[i], ARGV[i])
end
return #KEYS - 1
