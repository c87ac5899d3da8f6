-- Put in front of every script, after the key names of keys.py. All times are milliseconds of Redis's own clock.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local TIMELINE_MAX = 200
-- Scores of a submit lane's due set below TURNS are turns of tenants, in bands of one priority each; above, times.
local TURNS, BAND = 1e12, 1e10

-- What a script counts for /metrics, and by minutes for the pages' charts; `write_tallies` ends each script that counts.
local tallies, charted = {}, {}
local MINUTE_KEPT = 90000  -- seconds: a day and an hour

local function tally(name, chart)
  tallies[name] = (tallies[name] or 0) + 1
  if chart then charted[chart] = (charted[chart] or 0) + 1 end
end

local function write_tallies()
  for name, many in pairs(tallies) do redis.call('HINCRBY', STATS, name, many) end
  if not next(charted) then return end
  local minute = STAT .. math.floor(now / 60000)
  for name, many in pairs(charted) do redis.call('HINCRBY', minute, name, many) end
  redis.call('EXPIRE', minute, MINUTE_KEPT)
end

-- Append to a job's timeline; the newest entries are kept. Whoever waits for the job hears of it (store/watch.py).
local function note(job, event, detail)
  tally('event:' .. event)
  local line = string.format('%.0f %s', now, event)
  if detail and detail ~= '' then line = line .. ' ' .. string.sub(detail, 1, 300) end
  if redis.call('RPUSH', TIMELINE .. job, line) > TIMELINE_MAX then
    redis.call('LTRIM', TIMELINE .. job, -TIMELINE_MAX, -1)
  end
  redis.call('PUBLISH', NOTED .. job, event)
end

-- Where an idempotency key leads to its job: each tenant has keys of its own. No tenant's name has a slash.
local function key_of(tenant, key)
  if not tenant or tenant == '' then return IDEMPOTENCY .. key end
  return TENANT_KEY .. tenant .. '/' .. key
end

-- A target or a lane as a timeline shows it: of a URL only the host, since paths and queries may be secrets.
local function shown(target)
  return (string.gsub(target, '^(.*https?://[^/]+)/.+$', '%1/…', 1))
end

-- Make an item due in a lane, and have somebody look there in time.
local function make_due(lane, item, at)
  redis.call('ZADD', DUE .. lane, at, item)
  redis.call('ZADD', LANES, 'LT', at, lane)
end

-- Take an item out of the one place where it stands.
local function take_out(lane, item)
  if redis.call('ZREM', LEASED .. lane, item) == 0 then redis.call('ZREM', DUE .. lane, item) end
end

-- Change a job's state and its place in the listing together.
local function set_state(job, provider, from, to, created)
  tally('state:' .. provider .. ':' .. to, 'to:' .. to)
  redis.call('HSET', JOB .. job, 'st', to)
  redis.call('ZREM', INDEX .. provider .. ':' .. from, job)
  redis.call('ZADD', INDEX .. provider .. ':' .. to, created, job)
end

-- A submit's answer is lost, and a webhook told the external id: the job waits under it and is polled at once. One that
-- somebody gave up meanwhile stays where it is and only gets the id, so that its provider can be told.
local function adopt(job, has, external)
  redis.call('HDEL', JOB .. job, 'wx')
  redis.call('HSET', JOB .. job, 'x', external, 'su', now)
  if redis.call('HEXISTS', JOB .. job, 'cq') == 1 then return nil end
  local lane = 'poll:' .. has.provider
  take_out(has.lane, job)
  set_state(job, has.provider, has.state, 'waiting', has.created)
  redis.call('HSET', JOB .. job, 'f', has.fence + 1, 'ln', lane)
  redis.call('HDEL', JOB .. job, 'i', 'a')
  make_due(lane, job, now)
  note(job, 'adopted', external)
  return lane
end
