-- The verb that takes up an ended job again.
-- Uses     verbs, NO_FENCE, load_job, move (record/jobs.lua), leave_admission (record/admission.lua)
-- Gives    verbs.repoll

-- Forget the deliveries of the job's last end, whatever became of them: the timeline keeps that. Their numbers are not
-- used again, since a receiver ignores a delivery id that it has seen.
local function forget_deliveries(job_id, count)
  local tenant = count > 0 and call('HGET', JOB .. job_id, job_field.tenant)
  for n = 1, count do
    local delivery_id = job_id .. '#' .. n
    local target = call('HGET', DELIVERY .. delivery_id, delivery_field.target)
    if target then
      take_out(deliver_lane(target), delivery_id)
      leave_admission(tenant, delivery_id, target)
      call('ZREM', DEAD, delivery_id)
      call('DEL', DELIVERY .. delivery_id)
    end
  end
end

-- A person has a job that ended without a result polled again; nothing is submitted. It gets as much time again as it
-- had from its enqueue, and its next end makes deliveries of its own.
function verbs.repoll(outcome)
  local job, why = load_job(outcome.work_id, NO_FENCE)
  if not job then return why end
  local key, before = JOB .. job.id, job.state
  local submitted, external_id, ended, deadline, deliveries = get(
    key, job_field.submitted, job_field.external_id, job_field.ended, job_field.deadline, job_field.deliveries)
  if OPEN[before] or before == 'succeeded' or not (submitted or external_id) then return REFUSED end
  forget_deliveries(job.id, tonumber(deliveries or 0))
  call('ZREM', CLOSED, job.id)
  call('DEL', ERROR .. job.id)
  call('HDEL', key, job_field.ended, job_field.closed, job_field.open_deliveries, job_field.webhook_ended,
             job_field.unknown_polls, job_field.unknown_since, job_field.expiry_warned)
  call('HINCRBY', key, job_field.repolls, 1)
  if deadline then
    deadline = now + deadline - job.created
    call('HSET', key, job_field.deadline, deadline)
    call('ZADD', DEADLINES, deadline, job.id)
  end
  set_state(job, 'waiting')
  account(job.id)
  note(job.id, 'repolled', 'it had ' .. before)
  local at = math.max(now, (ended or 0) + outcome.min_interval_ms)
  move(job, poll_lane(job.provider), at, job_field.not_before, at, job_field.submitted, submitted or now)
  return WRITTEN
end
