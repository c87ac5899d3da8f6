-- The verb of webhooks.
local WEBHOOKS_MAX = 20  -- webhooks of one job that are kept; more are only counted, so that nobody pushes these out
local UNKNOWN_MAX = 200  -- webhooks for jobs that are gone

-- Poll a waiting job sooner: at once, or as soon as the provider's interval, the last retry and the like allow. One that is
-- being polled just now is hurried when that poll is recorded, if a webhook said that it ended (`wait`).
local function hurry(job, lane, last, before, least)
  local at = math.max(now, tonumber(before or 0), last and last + least or 0)
  local due = redis.call('ZSCORE', DUE .. lane, job)
  if due and tonumber(due) > at then
    make_due(lane, job, at)
    if at <= now then busy[lane] = true end
  end
end

-- What a webhook changes, in the timeline's words, and whether the job is now to be adopted. `says` is 'ended', 'unclear'
-- (worth a look) or 'unfinished'.
local function heed(job, has, said, external, says, least)
  local key = JOB .. job
  if not OPEN[has.state] then return 'changes nothing: the job had ended' end
  if external ~= '' and said.x and said.x ~= external then return 'changes nothing: it names ' .. external end
  if says == 'ended' then redis.call('HSETNX', key, 'wh', now) end
  if has.state == 'waiting' then
    if says == 'unfinished' then return 'changes nothing' end
    hurry(job, has.lane, said.lp, said.nb, least)
    return 'a poll confirms it'
  end
  if external ~= '' then redis.call('HSET', key, 'wx', external) end
  if said.i or (has.state == 'queued' and external == '') then return 'the submit has not been answered yet' end
  if external ~= '' then return 'it names ' .. external, true end
  return 'it names no external id that could be polled: `outwait resolve --as-webhook` accepts it'
end

-- A webhook. It is kept (unless it is replayed: no record), and taken for a hint that a poll confirms; with `ending`, the
-- settings trust it: then it ends the job. `nonce` tells the same call from another one that says the same.
function verbs.heard(job, _, record, told, says, external, least, nonce, ending)
  local key = JOB .. job
  local has = own(job, -1)
  if not has then
    if record ~= '' then
      redis.call('RPUSH', WEBHOOKS_UNKNOWN, string.format('%.0f ', now) .. record)
      redis.call('LTRIM', WEBHOOKS_UNKNOWN, -UNKNOWN_MAX, -1)
    end
    return -1
  end
  local is = redis.call('HMGET', key, 'x', 'i', 'lp', 'nb', 'wn')
  local said = {x = is[1], i = is[2], lp = is[3], nb = is[4]}
  if is[5] == nonce then return 1 end
  local count, kind = 0, 'replayed, '
  if record ~= '' then
    count = redis.call('HINCRBY', key, 'nw', 1)
    redis.call('HSET', key, 'wn', nonce)
    if count <= WEBHOOKS_MAX then redis.call('RPUSH', WEBHOOKS .. job, string.format('%.0f ', now) .. record) end
    kind = count > 1 and 'again, ' or has.state == 'queued' and 'early, ' or not OPEN[has.state] and 'late, ' or ''
  end
  local trusted = ending and OPEN[has.state] and (external == '' or not said.x or said.x == external)
  local became, adoptable = 'trusted', false
  if not trusted then became, adoptable = heed(job, has, said, external, says, least) end
  if count <= WEBHOOKS_MAX then note(job, 'webhook', kind .. told .. '; ' .. became) end
  if adoptable then adopted(job, has) end
  if not trusted then return 1 end
  if external ~= '' then redis.call('HSET', key, 'x', external) end
  if said.i then redis.call('HINCRBY', key, 'ns', 1) end  -- it was submitted; whoever hears the answer is refused
  return verbs['end'](unpack(ending, 2, table.maxn(ending)))
end
