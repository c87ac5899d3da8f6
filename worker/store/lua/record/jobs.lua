-- The verbs of jobs: from the submit to the end, and what people decide.
local retention = tonumber(ARGV[2])
local TOOK_MAX = 200  -- jobs of one operation whose durations are kept
local OPEN = {queued = true, waiting = true, uncertain = true}
local busy = {}
local well = {}  -- providers that answered as they should: their breakers close

-- The job as its owner knows it, or nil and why not. A fence of -1 speaks for nobody's lease: a webhook, a person.
local function own(job, fence)
  local has = redis.call('HMGET', JOB .. job, 'f', 'st', 'p', 'c', 'ln')
  if not has[1] then return nil, -1 end
  if fence >= 0 and tonumber(has[1]) ~= fence then return nil, 0 end
  return {state = has[2], provider = has[3], created = has[4], lane = has[5], fence = tonumber(has[1])}
end

-- Leave the present lane and become due in another (or the same) one. The fence is raised: an outcome counts once.
local function move(job, has, lane, at, ...)
  take_out(has.lane, job)
  redis.call('HSET', JOB .. job, 'f', has.fence + 1, 'ln', lane, ...)
  if has.lane ~= lane then redis.call('HDEL', JOB .. job, 'i', 'a') end
  make_due(lane, job, at)
  if at <= now then busy[lane] = true end
end

local function count(job, submits, polls, fetches)
  if submits > 0 then redis.call('HINCRBY', JOB .. job, 'ns', submits) end
  if polls > 0 then redis.call('HINCRBY', JOB .. job, 'np', polls) end
  if fetches > 0 then redis.call('HINCRBY', JOB .. job, 'nf', fetches) end
end

local function seen(job, status)
  if status == '' or redis.call('HGET', JOB .. job, 'ps') == status then return end
  redis.call('HSET', JOB .. job, 'ps', status)
  note(job, 'status', status)
end

-- A job is closed when none of its deliveries is open; it is purged after its retention.
local function close(job)
  redis.call('HSET', JOB .. job, 'cl', now)
  redis.call('ZADD', CLOSED, now + retention, job)
  note(job, 'closed')
end

local function finish(job, has, state, detail)
  set_state(job, has.provider, has.state, state, has.created)
  redis.call('HDEL', JOB .. job, 'i', 'a', 'cq', 'wx')
  note(job, state, detail)
  move(job, has, 'callback', now, 'en', now)
  return 1
end

-- Whether somebody gave the job up while its submit was on its way; then it ends now.
local function given_up(job, has)
  return redis.call('HEXISTS', JOB .. job, 'cq') == 1 and finish(job, has, 'cancelled') == 1
end

-- Whether a webhook told, before anybody knew the submit's answer, that the provider has the job: then it waits there.
local function adopted(job, has)
  local external = redis.call('HGET', JOB .. job, 'wx')
  local lane = external and adopt(job, has, external)
  if lane then busy[lane] = true end
  return lane
end

local verbs = {}

-- A webhook proves that the provider has a job of which we know no more: it is neither submitted again nor given up,
-- whatever an answer or the policy says. Adopted if the webhook named it, else it is left to a person. Nil: no such proof.
local function proven(job, fence, state, reason)
  if fence < 0 or state == 'waiting' then return nil end
  local heard = redis.call('HMGET', JOB .. job, 'wh', 'wx')
  if not (heard[1] or heard[2]) then return nil end
  if state == 'queued' then return verbs.uncertain(job, fence, reason, 0) end
  return verbs.hold(job, fence, 'the provider has it')
end

function verbs.submitted(job, fence, external, memo, countdown, submits, fetches)
  local has, why = own(job, fence)
  if not has then
    -- Whoever decides about the job wants to know what a worker learnt whose lease had ended.
    local stale = why == 0 and redis.call('HGET', JOB .. job, 'x') ~= external
    if stale then note(job, 'too-late', 'submitted as ' .. external) end
    return why
  end
  if not OPEN[has.state] then return 0 end
  local heard = redis.call('HMGET', JOB .. job, 'wh', 'wx')
  if heard[2] and heard[2] ~= external then
    redis.call('HDEL', JOB .. job, 'wh')
    note(job, 'warning', 'a webhook named another external id: ' .. heard[2])
  elseif heard[1] then
    countdown = 0
  end
  count(job, submits, 0, fetches)
  set_state(job, has.provider, has.state, 'waiting', has.created)
  redis.call('HDEL', JOB .. job, 'i', 'a', 'wx', 'xw')
  move(job, has, 'poll:' .. has.provider, now + countdown, 'x', external, 'su', now)
  if memo ~= '' then redis.call('HSET', JOB .. job, 'm', memo) end
  note(job, 'submitted')
  well[has.provider] = true
  has.state, has.lane, has.fence = 'waiting', 'poll:' .. has.provider, has.fence + 1
  given_up(job, has)
  return 1
end

-- The hot path: what most polls record. The lane's sorted sets are written once for the whole batch, in `flush`.
-- `hurried` is the countdown if a webhook said that the job ended (0: the same): polling is no safety net then.
local again = {}

function verbs.wait(job, fence, countdown, status, memo, polls, fetches, warning, hurried, expires)
  local key = JOB .. job
  local has = redis.call('HMGET', key, 'f', 'st', 'ln', 'np', 'ps', 'a', 'p', 'wh')
  if not has[1] then return -1 end
  if (fence >= 0 and tonumber(has[1]) ~= fence) or not OPEN[has[2]] then return 0 end
  redis.call('HSET', key, 'f', has[1] + 1, 'np', (has[4] or 0) + polls, 'lp', now)
  if fetches > 0 then redis.call('HINCRBY', key, 'nf', fetches) end
  if memo then redis.call('HSET', key, 'm', memo) end
  if has[6] then redis.call('HDEL', key, 'a') end
  if status ~= '' and status ~= has[5] then
    redis.call('HSET', key, 'ps', status)
    note(job, 'status', status)
  end
  if warning ~= '' then note(job, 'warning', warning) end
  if expires and expires ~= '' and redis.call('HSETNX', key, 'xw', 1) == 1 then note(job, 'warning', expires) end
  if hurried and hurried > 0 then
    redis.call('HSET', key, 'nb', now + hurried)
    if has[8] then countdown = hurried end
  end
  local lane = again[has[3]] or {due = {}, items = {}, first = math.huge}
  again[has[3]] = lane
  lane.due[#lane.due + 1] = now + countdown
  lane.due[#lane.due + 1] = job
  lane.items[#lane.items + 1] = job
  lane.first = math.min(lane.first, now + countdown)
  well[has[7]] = true
  return 1
end

local function flush()
  for provider in pairs(well) do
    local governor = GOVERNOR .. provider
    if redis.call('HEXISTS', governor, 'bf') == 1 then
      redis.call('HDEL', governor, 'bf', 'bo', 'bt', 'br', 'bp')
    end
  end
  for lane, group in pairs(again) do
    redis.call('ZREM', LEASED .. lane, unpack(group.items))
    redis.call('ZADD', DUE .. lane, unpack(group.due))
    redis.call('ZADD', LANES, 'LT', group.first, lane)
    if group.first <= now then busy[lane] = true end
  end
end

function verbs.retry(job, fence, countdown, reason, attempt, submits, polls, fetches)
  local has, why = own(job, fence)
  if not has then return why end
  count(job, submits, polls, fetches)
  if given_up(job, has) then return 1 end
  local known = proven(job, fence, has.state, reason)
  if known then return known end
  if attempt > 0 then redis.call('HINCRBY', JOB .. job, 'a', attempt) end
  redis.call('HDEL', JOB .. job, 'i')
  if has.state == 'uncertain' then set_state(job, has.provider, has.state, 'queued', has.created) end
  if has.state == 'waiting' then redis.call('HSET', JOB .. job, 'nb', now + countdown) end
  move(job, has, has.lane, now + countdown)
  note(job, 'retry', reason)
  return 1
end

function verbs.release(job, fence, intent)
  local has, why = own(job, fence)
  if not has then return why end
  if intent ~= '' and redis.call('HGET', JOB .. job, 'i') ~= intent then return 0 end
  if given_up(job, has) then return 1 end
  redis.call('HDEL', JOB .. job, 'i')
  redis.call('ZREM', RATE .. has.provider, job .. ':' .. fence, job .. ':' .. (fence - 1))
  move(job, has, has.lane, now)
  return 1
end

function verbs.uncertain(job, fence, reason, submits)
  local has, why = own(job, fence)
  if not has then return why end
  if has.state ~= 'queued' and has.state ~= 'uncertain' then return 0 end
  count(job, submits, 0, 0)
  set_state(job, has.provider, has.state, 'uncertain', has.created)
  redis.call('HDEL', JOB .. job, 'i')
  note(job, 'uncertain', reason)
  has.state = 'uncertain'
  if not adopted(job, has) then move(job, has, has.lane, now) end
  return 1
end

-- Held for a person: due at no time, so that it still stands in exactly one place.
function verbs.hold(job, fence, reason)
  local has, why = own(job, fence)
  if not has then return why end
  if has.state ~= 'uncertain' then return 0 end
  if given_up(job, has) then return 1 end
  if adopted(job, has) then return 1 end  -- a worker of the release before did not see to it
  take_out(has.lane, job)
  local lane = 'held:' .. has.provider
  redis.call('HSET', JOB .. job, 'f', has.fence + 1, 'ln', lane)
  redis.call('ZADD', DUE .. lane, '+inf', job)
  if redis.call('HEXISTS', JOB .. job, 'wh') == 1 then reason = reason .. '; a webhook said that it ended' end
  note(job, 'held', reason)
  return 1
end

-- How long the job took. A poll finds that it ended some time since the poll before (or the submit): the middle counts,
-- or what is learnt would grow with every interval that is learnt from it. A webhook comes at once; of one that came before
-- the submit's answer nothing can be learnt.
local function learn(job, provider, fence)
  local has = redis.call('HMGET', JOB .. job, 'op', 'su', 'lp', 'wh')
  if not has[2] then return end
  local told = has[4] and tonumber(has[4]) > tonumber(has[3] or 0) and has[4]  -- else a poll has found it untrue
  local took = (told or now) - has[2]
  if took <= 0 then return end
  local unseen = (told or fence < 0) and 0 or has[3] and now - has[3] or took
  local key = TOOK .. provider .. ':' .. has[1]
  redis.call('LPUSH', key, math.floor(took - unseen / 2))
  redis.call('LTRIM', key, 0, TOOK_MAX - 1)
end

verbs['end'] = function(job, fence, state, error, result, status, submits, polls, fetches)
  local has, why = own(job, fence)
  if not has then return why end
  if not OPEN[has.state] then
    note(job, 'too-late', state)
    return 0
  end
  count(job, submits, polls, fetches)
  local known = state == 'failed' and proven(job, fence, has.state, error)
  if known then return known end
  seen(job, status)
  if error ~= '' then redis.call('SET', ERROR .. job, error) else redis.call('DEL', ERROR .. job) end
  if result ~= '' then redis.call('SET', RESULT .. job, result) end
  if state == 'succeeded' then
    well[has.provider] = true
    learn(job, has.provider, fence)
  end
  return finish(job, has, state, error)
end

-- Somebody gives the job up. While its submit is on its way that only can be asked for: the answer must be known first.
function verbs.cancel(job, _, error)
  local has, why = own(job, -1)
  if not has then return why end
  if not OPEN[has.state] then return 0 end
  redis.call('SET', ERROR .. job, error)
  if redis.call('HEXISTS', JOB .. job, 'i') == 0 then return finish(job, has, 'cancelled', error) end
  redis.call('HSET', JOB .. job, 'cq', 1)
  note(job, 'cancel-asked', 'its submit is on its way')
  return 2
end

-- A person decides about an uncertain job: 'submitted-as' with the external id, 'resubmit', 'fail' with the error, or
-- 'as-webhook' with the end that a webhook told.
function verbs.resolve(job, _, choice, detail, ending)
  local has, why = own(job, -1)
  if not has then return why end
  if has.state ~= 'uncertain' then return 0 end
  note(job, 'resolved', detail == '' and choice or choice .. ' ' .. detail)
  if choice == 'as-webhook' then return verbs['end'](unpack(ending, 2, table.maxn(ending))) end
  if choice == 'fail' then
    redis.call('SET', ERROR .. job, detail)
    return finish(job, has, 'failed')
  end
  local to = choice == 'resubmit' and 'queued' or 'waiting'
  set_state(job, has.provider, has.state, to, has.created)
  if to == 'queued' then
    move(job, has, 'submit:' .. has.provider, now)
    redis.call('HDEL', JOB .. job, 'a', 'wh')
  else
    move(job, has, 'poll:' .. has.provider, now, 'x', detail, 'su', now)
  end
  return 1
end
