-- The verbs of deliveries: from the fan-out of an ended job.
-- Uses     verbs, load_job, close (record/jobs.lua), admit_or_wait, leave_admission (record/admission.lua)
-- Gives    verbs.fanout, delivered, dead, redeliver, release_delivery, replay
function verbs.fanout(outcome)
  local job, why = load_job(outcome.work_id, outcome.fence)
  if not job then return why end
  local targets = outcome.targets
  local before = tonumber(call('HGET', JOB .. job.id, job_field.deliveries) or 0)  -- of an end that was repolled
  take_out(job.lane, job.id)
  call('HSET', JOB .. job.id, job_field.fence, job.fence + 1, job_field.lane, '',
             job_field.open_deliveries, #targets, job_field.deliveries, before + #targets)
  local tenant = #targets > 0 and call('HGET', JOB .. job.id, job_field.tenant)
  for n, target in ipairs(targets) do
    local delivery_id = job.id .. '#' .. before + n
    call('HSET', DELIVERY .. delivery_id, delivery_field.fence, 0, delivery_field.state, 'pending',
               delivery_field.target, target)
    admit_or_wait(tenant, delivery_id, target, now)
  end
  if outcome.provider_answer then note(job.id, 'provider-told', outcome.provider_answer) end
  note(job.id, 'callback', #targets .. (#targets == 1 and ' delivery' or ' deliveries'))
  if #targets == 0 then close(job.id) end
  return WRITTEN
end

-- The delivery if this fence may write it, taken out of its lane and counted as an attempt if it was one; else nil and
-- the code that says why not.
local function load_delivery(delivery_id, fence, is_attempt)
  local key = DELIVERY .. delivery_id
  local stored_fence, target = get(key, delivery_field.fence, delivery_field.target)
  if not stored_fence then return nil, UNKNOWN end
  if tonumber(stored_fence) ~= fence then return nil, REFUSED end
  local job_id, lane = job_of(delivery_id), deliver_lane(target)
  take_out(lane, delivery_id)
  call('HSET', key, delivery_field.fence, fence + 1)
  local tenant = call('HGET', JOB .. job_id, job_field.tenant)
  if is_attempt then
    call('HINCRBY', JOB .. job_id, job_field.delivery_attempts, 1)
    leave_admission(tenant, delivery_id, target)
  end
  return {id = delivery_id, key = key, job_id = job_id, target = target, tenant = tenant, lane = lane}
end

-- Counted by kind of handler: there may be any number of targets.
local function tally_delivery(target, result)
  tally('delivery:' .. (string.match(target, '^(%a+):') or 'function') .. ':' .. result)
end

local function settle(delivery, state, detail)
  tally_delivery(delivery.target, state)
  call('HSET', delivery.key, delivery_field.state, state)
  note(delivery.job_id, state, shown(delivery.target) .. detail)
  if call('HINCRBY', JOB .. delivery.job_id, job_field.open_deliveries, -1) <= 0 then close(delivery.job_id) end
end

function verbs.delivered(outcome)
  local delivery, why = load_delivery(outcome.work_id, outcome.fence, true)
  if not delivery then return why end
  call('HDEL', delivery.key, delivery_field.error, delivery_field.attempts)
  settle(delivery, 'delivered', outcome.detail and ' ' .. outcome.detail or '')
  return WRITTEN
end

function verbs.dead(outcome)
  local delivery, why = load_delivery(outcome.work_id, outcome.fence, true)
  if not delivery then return why end
  call('HSET', delivery.key, delivery_field.error, outcome.error)
  call('ZADD', DEAD, now, delivery.id)
  settle(delivery, 'dead', ' ' .. outcome.error)
  return WRITTEN
end

function verbs.redeliver(outcome)
  local delivery, why = load_delivery(outcome.work_id, outcome.fence, true)
  if not delivery then return why end
  tally_delivery(delivery.target, 'retried')
  call('HINCRBY', delivery.key, delivery_field.attempts, 1)
  call('HSET', delivery.key, delivery_field.error, outcome.error)
  admit_or_wait(delivery.tenant, delivery.id, delivery.target, now + outcome.countdown_ms)
  note(delivery.job_id, 'delivery-retry', shown(delivery.target) .. ' ' .. outcome.error)
  return WRITTEN
end

-- A delivery that the worker gives back at shutdown: not an attempt, and it keeps its room.
function verbs.release_delivery(outcome)
  local delivery, why = load_delivery(outcome.work_id, outcome.fence, false)
  if not delivery then return why end
  make_due(delivery.lane, delivery.id, now)
  return WRITTEN
end

-- Repeat one settled delivery; the submit is never repeated.
function verbs.replay(outcome)
  local delivery_id, key = outcome.work_id, DELIVERY .. outcome.work_id
  local state, target = get(key, delivery_field.state, delivery_field.target)
  if not state then return UNKNOWN end
  if state == 'pending' then return REFUSED end
  local job_id = job_of(delivery_id)
  call('ZREM', DEAD, delivery_id)
  call('ZREM', CLOSED, job_id)
  call('HDEL', JOB .. job_id, job_field.closed)
  call('HINCRBY', JOB .. job_id, job_field.open_deliveries, 1)
  call('HDEL', key, delivery_field.attempts, delivery_field.error)
  call('HSET', key, delivery_field.state, 'pending')
  admit_or_wait(call('HGET', JOB .. job_id, job_field.tenant), delivery_id, target, now)
  note(job_id, 'replay', shown(target))
  return WRITTEN
end
