-- Lease due items of one lane, as many as may go now. First puts back what outlived its lease.
-- ARGV     1 lane, 2 most items, 3 lease ms, 4 cap on the lane's leases, 5 'job' or 'delivery',
--          6 rate group or '', 7 requests in a window (0: no limit), 8 window ms, 9 requests in flight (0: no limit),
--          10 jobs in flight at the provider (0: no limit, and in lanes that submit nothing), 11 ms that two requests
--          for one item are apart at least, 12… the group's lanes
-- Returns  msgpack array of claims {item, fence, provider, operation, external id, memo, state, attempts, created,
--          submitted, deadline, provider status, last poll that found it unfinished, due, trace}; a delivery's has item,
--          fence, provider, operation, attempts, due and trace
-- States   queued -> uncertain, for a submit whose lease ended after its request may have left; -> waiting, if a webhook
--          has told its external id
local lane, most, lease, cap, kind = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local group, limit, window, in_flight = ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local jobs_in_flight, apart = tonumber(ARGV[10]), tonumber(ARGV[11])
local due, leased = DUE .. lane, LEASED .. lane
local hash = kind == 'job' and JOB or DELIVERY

-- Whoever held the lease may have sent a request until it ended, so the next one keeps its distance from there.
local function put_back()
  local over = redis.call('ZRANGEBYSCORE', leased, '-inf', now, 'WITHSCORES', 'LIMIT', 0, most)
  for i = 1, #over, 2 do
    local item, ended = over[i], tonumber(over[i + 1])
    redis.call('ZREM', leased, item)
    local key = hash .. item
    if redis.call('EXISTS', key) == 1 then
      redis.call('HINCRBY', key, 'a', 1)
      redis.call('ZADD', due, math.max(now, ended + apart), item)
      if apart > 0 then redis.call('HSET', key, 'nb', ended + apart) end
      local job = string.match(item, '^[^#]+')
      note(job, 'lease-ended', shown(lane))
      if kind == 'job' and redis.call('HGET', key, 'i') then
        local has = redis.call('HMGET', key, 'p', 'st', 'c', 'f', 'wx')
        redis.call('HDEL', key, 'i')
        redis.call('HINCRBY', key, 'ns', 1)
        set_state(item, has[1], has[2], 'uncertain', has[3])
        note(item, 'uncertain', 'the worker was lost after the request may have left')
        local known = {provider = has[1], state = 'uncertain', created = has[3], fence = tonumber(has[4]), lane = lane}
        if has[5] then adopt(item, known, has[5]) end
      end
    end
  end
end

-- How many the pause, the person or the breaker let through: none, one probe, or all; and when to look again.
local function gate(governor)
  local has = redis.call('HMGET', governor, 'pu', 'mp', 'bo', 'bp')
  if has[2] then return 0, now + 2000 end
  if has[1] and tonumber(has[1]) > now then return 0, tonumber(has[1]) end
  if not has[3] then return most, nil end
  if tonumber(has[3]) > now then return 0, tonumber(has[3]) end
  if has[4] and tonumber(has[4]) > now then return 0, now + 200 end
  return 1, now + 200
end

-- How many may go now, and when to look again if that is fewer than are due.
local function allowance()
  local many, look = most, nil
  local function at_most(room, later)
    if room < many then many, look = room, later end
  end
  at_most(cap - redis.call('ZCARD', leased), now + 50)
  if group == '' then return many, look end
  at_most(gate(GOVERNOR .. group))
  if in_flight > 0 then
    local room = in_flight
    for i = 12, #ARGV do room = room - redis.call('ZCARD', LEASED .. ARGV[i]) end
    at_most(room, now + 50)
  end
  if jobs_in_flight > 0 then
    at_most(jobs_in_flight - redis.call('ZCARD', INDEX .. group .. ':waiting') - redis.call('ZCARD', leased), now + 200)
  end
  if limit > 0 then
    local rate = RATE .. group
    redis.call('ZREMRANGEBYSCORE', rate, '-inf', now - window)
    local oldest = redis.call('ZRANGE', rate, 0, 0, 'WITHSCORES')
    at_most(limit - redis.call('ZCARD', rate), oldest[2] and oldest[2] + window + 1 or now + 50)
  end
  return math.max(many, 0), look
end

-- Raise the item's fence and read it; nil if it was purged. One that waited for its turn has been due since it was created.
local function lease_out(item, at)
  local has = redis.call('HMGET', hash .. item, 'f', 'a', 'p', 'op', 'x', 'm', 'st', 'c', 'su', 'dl', 'ps', 'lp', 'tp')
  if not has[1] then return nil end
  local fence = tonumber(has[1]) + 1
  redis.call('HSET', hash .. item, 'f', fence)
  local attempts = tonumber(has[2] or 0)
  if kind ~= 'job' then
    local of = redis.call('HMGET', JOB .. string.match(item, '^(.+)#'), 'p', 'op', 'tp')
    return {item, fence, of[1] or '', of[2] or '', '', '', '', attempts, 0, 0, 0, '', 0, at, of[3] or ''}
  end
  if at < TURNS then at = tonumber(has[8]) end
  return {item, fence, has[3], has[4], has[5] or '', has[6] or '', has[7], attempts, tonumber(has[8]),
          tonumber(has[9] or 0), tonumber(has[10] or 0), has[11] or '', tonumber(has[12] or 0), at, has[13] or ''}
end

-- In a submit lane: who is next, each with its score. Half of the places are for those whose countdown has ended, the
-- rest for tenants' turns.
local function next_turns(many)
  local timed = redis.call('ZRANGEBYSCORE', due, TURNS, now, 'WITHSCORES', 'LIMIT', 0, many)
  local turns = redis.call('ZRANGEBYSCORE', due, '-inf', '(' .. TURNS, 'WITHSCORES', 'LIMIT', 0, many)
  local chosen, reached = {}, {}
  for i = 1, math.min(#timed, 2 * math.max(math.ceil(many / 2), many - #turns / 2)) do chosen[i] = timed[i] end
  for i = 1, #turns, 2 do
    if #chosen == 2 * many then break end
    chosen[#chosen + 1] = turns[i]
    chosen[#chosen + 1] = turns[i + 1]
    local band = math.floor(turns[i + 1] / BAND)
    reached[band] = turns[i + 1] - band * BAND
  end
  for band, mine in pairs(reached) do redis.call('HSET', FAIR .. lane, band, mine) end
  return chosen
end

local function next_ones(many)
  if string.sub(lane, 1, 7) == 'submit:' then return next_turns(many) end
  return redis.call('ZRANGEBYSCORE', due, '-inf', now, 'WITHSCORES', 'LIMIT', 0, many)
end

-- Submits and polls of one rate share it by turns.
local function other_wants()
  for i = 12, #ARGV do
    local other = ARGV[i]
    if other ~= lane and #redis.call('ZRANGEBYSCORE', DUE .. other, '-inf', now, 'LIMIT', 0, 1) > 0 then return true end
  end
  return false
end

-- Whoever went last leaves the next place to the other. That one may be stopped for reasons of its own, so not for ever.
local function take_turns(many)
  local governor = GOVERNOR .. group
  if redis.call('HGET', governor, 'tl') == lane and redis.call('HINCRBY', governor, 'ty', 1) < 6 then return 0 end
  redis.call('HSET', governor, 'tl', lane, 'ty', 0)
  return math.ceil(many / 2)
end

put_back()
local many, look = allowance()
if limit > 0 and many > 0 and many < most and other_wants() then
  many = take_turns(many)
  look = now + 50
end
local claims, stamps, moved = {}, {}, {}
local ends = now + lease
if many > 0 then
  local chosen = next_ones(many)
  for i = 1, #chosen, 2 do
    local item = chosen[i]
    moved[#moved + 1] = item
    local claim = lease_out(item, tonumber(chosen[i + 1]))
    if claim then
      claims[#claims + 1] = claim
      stamps[#stamps + 1] = ends
      stamps[#stamps + 1] = item
      if limit > 0 then redis.call('ZADD', RATE .. group, ends, item .. ':' .. claim[2]) end
    end
  end
end
-- Behind an open breaker this one is the probe: nothing else goes until it is known, or its lease ends.
if group ~= '' and #claims > 0 and redis.call('HEXISTS', GOVERNOR .. group, 'bo') == 1 then
  redis.call('HSET', GOVERNOR .. group, 'bp', ends)
end
if #moved > 0 then redis.call('ZREM', due, unpack(moved)) end
if #stamps > 0 then redis.call('ZADD', leased, unpack(stamps)) end
if limit > 0 then redis.call('PEXPIRE', RATE .. group, window + lease) end

-- When this lane must be looked at next: work left over, the next countdown, or the next lease that may end.
local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
local ending = redis.call('ZRANGE', leased, 0, 0, 'WITHSCORES')
local at = first[2] and tonumber(first[2])
if not at then redis.call('DEL', FAIR .. lane) end
if at and at <= now then at = look or now end
if ending[2] and (not at or tonumber(ending[2]) < at) then at = tonumber(ending[2]) end
if at and at ~= math.huge then
  redis.call('ZADD', LANES, at, lane)
else
  redis.call('ZREM', LANES, lane)
end
write_tallies()
return cmsgpack.pack(claims)
