-- Bring some jobs that a release before stored up to date: which job has which external id, and what each tenant's
-- jobs take. Workers of two releases may run at once, so this begins again an hour after its end.
-- Arguments  limit (of jobs, about)
-- Returns    1 if more are to be done, 0 if all are
local DONE, AGAIN_MS = 'done', 3600000
local STATES = {'queued', 'waiting', 'uncertain', 'succeeded', 'failed', 'expired', 'cancelled'}

local function everything()
  local indexes = {}
  for _, provider in ipairs(call('SMEMBERS', PROVIDERS)) do
    for _, state in ipairs(STATES) do indexes[#indexes + 1] = provider .. ':' .. state end
  end
  return {indexes, '0'}
end

local function bring_up(job_id)
  local provider, external_id = get(JOB .. job_id, job_field.provider, job_field.external_id)
  if external_id then
    local bucket, field = place_of(provider, external_id)
    call('HSETNX', bucket, field, job_id)
  end
  account(job_id)
end

local state = call('GET', CATCH_UP)
if state == DONE then return 0 end
local indexes, cursor = unpack(state and cmsgpack.unpack(state) or everything())
if #indexes > 0 then
  local page = call('ZSCAN', INDEX .. indexes[#indexes], cursor, 'COUNT', arguments.limit)
  for i = 1, #page[2], 2 do bring_up(page[2][i]) end
  cursor = page[1]
  if cursor == '0' then indexes[#indexes] = nil end
end
if #indexes == 0 then
  call('SET', CATCH_UP, DONE, 'PX', AGAIN_MS)
  return 0
end
call('SET', CATCH_UP, cmsgpack.pack({indexes, cursor}))
return 1
