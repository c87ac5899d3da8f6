-- Forget an access token that was refused, unless somebody has renewed it meanwhile.
-- KEYS     2 the token's key;  ARGV 1 the refused token
if redis.call('GET', KEYS[2]) == ARGV[1] then return redis.call('DEL', KEYS[2]) end
return 0
