-- The verb of webhooks.
-- Uses     verbs, due_now, NO_FENCE, load_job, adopt_if_named (record/jobs.lua)
-- Gives    verbs.webhook_received
local WEBHOOKS_MAX = 20  -- webhooks of one job that are kept; more are only counted, so that nobody pushes these out
local UNKNOWN_MAX = 200  -- webhooks for jobs that are gone

-- A webhook as it is kept, behind the time when it came.
local function kept(record) return string.format('%.0f ', now) .. record end

-- Poll a waiting job sooner: at once, or as soon as the provider's interval, the last retry and the like allow. A poll that
-- is under way is followed by one that is soon, if a webhook said that the job ended: `wait` sees to that.
local function poll_sooner(job, min_interval_ms)
  local last_poll, not_before = get(JOB .. job.id, job_field.last_poll, job_field.not_before)
  local at = math.max(now, tonumber(not_before or 0), last_poll and last_poll + min_interval_ms or 0)
  local due = call('ZSCORE', DUE .. job.lane, job.id)
  if due and tonumber(due) > at then
    make_due(job.lane, job.id, at)
    if at <= now then due_now[job.lane] = true end
  end
end

-- What a webhook changes, in the timeline's words, and whether the job is now to be adopted.
local function apply_webhook(job, webhook, external_id, intent)
  local key, named = JOB .. job.id, webhook.external_id
  if not OPEN[job.state] then return 'changes nothing: the job had ended' end
  if named and external_id and external_id ~= named then return 'changes nothing: it names ' .. named end
  if is_taken(job, named) then return 'changes nothing: it names ' .. named .. ', which another job has' end
  if webhook.verdict == 'ended' then call('HSETNX', key, job_field.webhook_ended, now) end
  if job.state == 'waiting' then
    if named and not external_id then set_external_id(job, named) end
    if webhook.verdict == 'unfinished' then return 'changes nothing' end
    poll_sooner(job, webhook.min_interval_ms)
    if not (named or external_id) then return 'nothing can be polled: what it says counts' end
    return 'a poll confirms it'
  end
  if named then call('HSET', key, job_field.webhook_external_id, named) end
  if intent or (job.state == 'queued' and not named) then return 'the submit has not been answered yet' end
  if named then return 'it names ' .. named, true end
  return 'it names no external id that could be polled: `outwait resolve --as-webhook` accepts it'
end

-- Keep a webhook, and say which of the job's it is.
local function keep_webhook(job, webhook)
  local key = JOB .. job.id
  local count = call('HINCRBY', key, job_field.webhooks, 1)
  call('HSET', key, job_field.webhook_nonce, webhook.nonce)
  if count <= WEBHOOKS_MAX then
    call('RPUSH', WEBHOOKS .. job.id, kept(webhook.record))
    call('HINCRBY', key, job_field.webhook_bytes, #webhook.record)
    account(job.id)
  end
  local kind = count > 1 and 'again, ' or job.state == 'queued' and 'early, ' or not OPEN[job.state] and 'late, ' or ''
  return count, kind
end

-- A webhook. It is kept (unless it is replayed: no record), and taken for a hint that a poll confirms; with `end_outcome`,
-- the settings trust it: then it ends the job. `nonce` tells the same call from another one that says the same.
function verbs.webhook_received(webhook)
  local job = load_job(webhook.work_id, NO_FENCE)
  if not job then
    if webhook.record then
      call('RPUSH', WEBHOOKS_UNKNOWN, kept(webhook.record))
      call('LTRIM', WEBHOOKS_UNKNOWN, -UNKNOWN_MAX, -1)
    end
    return UNKNOWN
  end
  local key, named = JOB .. job.id, webhook.external_id
  local external_id, intent, last_nonce = get(key, job_field.external_id, job_field.intent, job_field.webhook_nonce)
  if last_nonce == webhook.nonce then return WRITTEN end
  local count, kind = 0, 'replayed, '
  if webhook.record then count, kind = keep_webhook(job, webhook) end
  local is_its_own = (not (named and external_id) or external_id == named) and not is_taken(job, named)
  local trusted = webhook.end_outcome and OPEN[job.state] and is_its_own
  local effect, adoptable = 'trusted', false
  if not trusted then effect, adoptable = apply_webhook(job, webhook, external_id, intent) end
  if count <= WEBHOOKS_MAX then note(job.id, 'webhook', kind .. webhook.summary .. '; ' .. effect) end
  if adoptable then adopt_if_named(job) end
  if not trusted then return WRITTEN end
  if named then set_external_id(job, named) end
  if intent then call('HINCRBY', key, job_field.submits, 1) end  -- it was submitted; a later answer is refused
  return verbs['end'](webhook.end_outcome)
end
