-- The verbs of providers' governors.
-- Uses     verbs (record/jobs.lua)
-- Gives    verbs.pause, suspend, resume, outage, spent

-- The lanes of a provider's rate. Only those that are to be looked at later are looked at sooner.
local function look_sooner(provider, at)
  for _, lane in ipairs({submit_lane(provider), poll_lane(provider)}) do call('ZADD', LANES, 'XX', 'LT', at, lane) end
end

-- Nothing more may be sent to this provider for a while; a longer pause that stands already wins.
function verbs.pause(outcome)
  local governor, ends = GOVERNOR .. outcome.provider, now + outcome.pause_ms
  if tonumber(call('HGET', governor, governor_field.paused_until) or 0) < ends then
    call('HSET', governor, governor_field.paused_until, ends, governor_field.pause_reason, outcome.reason)
  end
  return WRITTEN
end

-- A person stops everything of this provider, until a person resumes it.
function verbs.suspend(outcome)
  call('HSET', GOVERNOR .. outcome.provider, governor_field.suspended, now,
             governor_field.suspend_reason, outcome.reason, governor_field.suspended_by,
             string.format('%.0f ', now) .. (outcome.by or ''))
  return WRITTEN
end

-- A person lets it go on, also if the provider itself asked for the pause (an absurd Retry-After).
-- Its lanes are looked at at once, not when the pause had them looked at next.
function verbs.resume(outcome)
  local governor = GOVERNOR .. outcome.provider
  local lifted = call('HDEL', governor, governor_field.suspended, governor_field.suspend_reason,
                        governor_field.suspended_by)
  if tonumber(call('HGET', governor, governor_field.paused_until) or 0) > now then
    lifted = lifted + call('HDEL', governor, governor_field.paused_until, governor_field.pause_reason)
  end
  if lifted == 0 then return REFUSED end
  look_sooner(outcome.provider, now)
  return WRITTEN
end

-- The provider could not be reached or failed. After `limit` outages in a row the breaker opens; while it is open each
-- failed probe doubles the time until the next one.
function verbs.outage(outcome)
  local governor = GOVERNOR .. outcome.provider
  local outages = call('HINCRBY', governor, governor_field.outages, 1)
  local open_until, times_opened = get(governor, governor_field.open_until, governor_field.times_opened)
  if not open_until and outages < outcome.limit then return WRITTEN end
  if open_until and tonumber(open_until) > now then return WRITTEN end
  if not open_until then tally('opened:' .. outcome.provider) end
  times_opened = tonumber(times_opened or 0)
  local wait_ms = math.min(outcome.wait_ms * 2 ^ times_opened, outcome.longest_ms)
  call('HSET', governor, governor_field.open_until, now + wait_ms, governor_field.times_opened, times_opened + 1,
             governor_field.open_reason, outcome.reason)
  call('HDEL', governor, governor_field.probe_until)
  return WRITTEN
end

-- A step of a provider with a limited rate is over: its requests count from now, when the last of them had certainly
-- arrived.
function verbs.spent(outcome)
  local rate, entry = RATE .. outcome.provider, rate_entry(outcome.work_id, outcome.claim_fence)
  if outcome.requests == 0 then
    call('ZREM', rate, entry)
  else
    call('ZADD', rate, 'XX', now, entry)
    for extra = 2, outcome.requests do call('ZADD', rate, now, entry .. ':' .. extra) end
  end
  -- A lane that waited for this place waited for the lease's end: look again when the place is free.
  look_sooner(outcome.provider, now + outcome.window_ms + 1)
  return WRITTEN
end
