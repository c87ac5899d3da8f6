-- Forget closed jobs whose retention is over.
-- ARGV     1 how many at most
-- Returns  how many were forgotten
local jobs = redis.call('ZRANGEBYSCORE', CLOSED, '-inf', now, 'LIMIT', 0, ARGV[1])
for _, job in ipairs(jobs) do
  local has = redis.call('HMGET', JOB .. job, 'p', 'st', 'dn', 'ik', 'tn')
  for n = 1, tonumber(has[3] or 0) do
    redis.call('DEL', DELIVERY .. job .. '#' .. n)
    redis.call('ZREM', DEAD, job .. '#' .. n)
  end
  for _, alias in ipairs(redis.call('SMEMBERS', ALIASES .. job)) do redis.call('DEL', ALIAS .. alias) end
  if has[1] then redis.call('ZREM', INDEX .. has[1] .. ':' .. has[2], job) end
  if has[4] then redis.call('DEL', key_of(has[5], has[4])) end
  if has[5] then redis.call('ZREM', TENANT .. has[5], job) end
  redis.call('DEL', JOB .. job, SPEC .. job, RESULT .. job, TIMELINE .. job, ERROR .. job, ALIASES .. job,
             WEBHOOKS .. job)
  redis.call('ZREM', CLOSED, job)
end
return #jobs
