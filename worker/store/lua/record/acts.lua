-- What persons did. It is kept apart from timelines, so that nothing that happens to a job pushes it out.
-- Uses     arguments.audit_ms
-- Gives    write_act
local ACTS_MAX, JOB_ACTS_MAX = 10000, 100  -- the newest acts of one trail, and of one job

-- `act` is model.acts.NewAct. A trail that nobody writes to any longer is forgotten with its last act.
local function write_act(act, job_id)
  local tenant = act.tenant or ''
  if job_id then tenant = call('HGET', JOB .. job_id, job_field.tenant) or '' end
  local line = string.format('%.0f %s %s %s', now, job_id or '', tenant, act.record)
  local trail = ACTS .. act.trail
  call('LPUSH', trail, line)
  call('LTRIM', trail, 0, ACTS_MAX - 1)
  call('PEXPIRE', trail, arguments.audit_ms)
  call('SADD', TRAILS, act.trail)
  if not job_id then return end
  call('LPUSH', JOB_ACTS .. job_id, line)
  call('LTRIM', JOB_ACTS .. job_id, 0, JOB_ACTS_MAX - 1)
  call('PEXPIRE', JOB_ACTS .. job_id, arguments.audit_ms)
end
