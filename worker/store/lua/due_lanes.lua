-- Which lanes have something to do now, and how long until the next one has. First admits deliveries whose turn it is.
-- Uses       admit_waiting (record/admission.lua)
-- Arguments  limit (of lanes), per_tenant and per_host (deliveries admitted at once)
-- Returns    {array of lanes, ms until the next one has something to do, or -1}
local SCOPES = 50  -- that one call looks at
for _, scope in ipairs(call('ZRANGEBYSCORE', BACKLOGS, '-inf', now, 'LIMIT', 0, SCOPES)) do admit_waiting(scope) end
local lanes = call('ZRANGEBYSCORE', LANES, '-inf', now, 'LIMIT', 0, arguments.limit)
local wait_ms = -1
for _, key in ipairs({LANES, BACKLOGS}) do
  local first = call('ZRANGEBYSCORE', key, '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if first[2] and first[2] ~= 'inf' then
    local wait = math.max(0, first[2] - now)
    wait_ms = wait_ms < 0 and wait or math.min(wait, wait_ms)
  end
end
return cmsgpack.pack({lanes, wait_ms})
