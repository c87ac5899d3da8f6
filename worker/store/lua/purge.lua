-- Forget closed jobs whose retention is over.
-- Arguments  limit
-- Returns    how many were forgotten
local STATES = {'queued', 'waiting', 'uncertain', 'succeeded', 'failed', 'expired', 'cancelled'}

-- A provider without jobs: it may be a name that somebody made up, which an earlier release listed.
local function forget_if_unused(provider)
  for _, state in ipairs(STATES) do
    if call('EXISTS', INDEX .. provider .. ':' .. state) == 1 then return end
  end
  call('SREM', PROVIDERS, provider)
end

local jobs = call('ZRANGEBYSCORE', CLOSED, '-inf', now, 'LIMIT', 0, arguments.limit)
for _, job_id in ipairs(jobs) do
  local provider, state, deliveries, key, tenant, external_id, counted_bytes = get(
    JOB .. job_id, job_field.provider, job_field.state, job_field.deliveries, job_field.idempotency_key, job_field.tenant,
    job_field.external_id, job_field.counted_bytes)
  for n = 1, tonumber(deliveries or 0) do
    call('DEL', DELIVERY .. job_id .. '#' .. n)
    call('ZREM', DEAD, job_id .. '#' .. n)
  end
  for _, alias in ipairs(call('SMEMBERS', ALIASES .. job_id)) do call('DEL', ALIAS .. alias) end
  if provider and call('ZREM', INDEX .. provider .. ':' .. state, job_id) == 1 then forget_if_unused(provider) end
  if key then call('DEL', key_of(tenant, key)) end
  if external_id then leave_external_id(job_id, provider, external_id) end
  if tenant then
    call('ZREM', TENANT .. tenant, job_id)
    if counted_bytes then call('HINCRBY', USE .. tenant, use_field.bytes, -counted_bytes) end
    if call('EXISTS', TENANT .. tenant) == 0 then call('DEL', USE .. tenant) end
  end
  call('DEL', JOB .. job_id, SPEC .. job_id, RESULT .. job_id, TIMELINE .. job_id, ERROR .. job_id,
             ALIASES .. job_id, WEBHOOKS .. job_id, JOB_ACTS .. job_id)
  call('ZREM', CLOSED, job_id)
end
return #jobs
