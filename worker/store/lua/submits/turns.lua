-- What a claim takes from a submit lane: what waits to be put in line, and the jobs whose turn it is.
-- Uses     call, get, make_due, FIRST_TIME, BAND (prelude.lua), NORMAL_PRIORITY; LINE_WIDTH, line_start, line_up
--          (submits/lines.lua)
-- Gives    line_up_due, next_turns, reline
local LINED_UP = 500  -- jobs that one claim puts in line at most

-- Whose countdown has ended, and whom release 0.2.0 enqueued, goes to its tenant's line. Not an uncertain job: nothing is
-- sent for it, so it needs no turn. Returns those with their scores, and whether there may be more of all of them.
local function line_up_due(lane)
  local due_now = call('ZRANGEBYSCORE', DUE .. lane, 0, now, 'WITHSCORES', 'LIMIT', 0, LINED_UP)
  local uncertain = {}
  for i = 1, #due_now, 2 do
    local job_id, score, key = due_now[i], due_now[i + 1], JOB .. due_now[i]
    local state, tenant, priority, claimed =
      get(key, job_field.state, job_field.tenant, job_field.priority, job_field.claimed)
    if state == 'uncertain' then
      uncertain[#uncertain + 1] = job_id
      uncertain[#uncertain + 1] = score
    elseif not state then
      call('ZREM', DUE .. lane, job_id)
    else
      if tonumber(score) >= FIRST_TIME then
        call('HSET', key, job_field.due, score)
      else
        priority = 9 - math.floor(score / BAND)
        call('HSET', key, job_field.priority, priority)
      end
      line_up(lane, job_id, tenant, priority or NORMAL_PRIORITY, claimed)
    end
  end
  return uncertain, #due_now == 2 * LINED_UP
end

-- Give `places` to these tenants, one after the other, as often as there are places; `chosen` gets jobs and their scores.
-- `taken`: how many of its jobs each tenant has sent already. Returns the tenants that go on, the next first, and the others.
local function serve(lane, tenants, places, chosen, taken)
  local numbers, lines, counts, queue, longer, ended = call('HMGET', LINES .. lane, unpack(tenants)), {}, {}, {}, {}, {}
  local looked_at = math.ceil(places / #tenants) + 1
  for i, tenant in ipairs(tenants) do
    local start = line_start(numbers[i] or 0)
    lines[i] = numbers[i] and call('ZRANGEBYSCORE', DUE .. lane, start, start + LINE_WIDTH - 1, 'WITHSCORES',
                                   'LIMIT', taken[tenant] or 0, looked_at) or {}
    counts[i] = 0
    if lines[i][1] then queue[#queue + 1] = i else ended[#ended + 1] = tenant end
  end
  local head = 1
  while places > 0 and queue[head] do
    local i = queue[head]
    local tenant, line, n = tenants[i], lines[i], 2 * counts[i]
    chosen[#chosen + 1] = line[n + 1]
    chosen[#chosen + 1] = line[n + 2]
    counts[i], taken[tenant], places, head = counts[i] + 1, (taken[tenant] or 0) + 1, places - 1, head + 1
    if line[n + 3] then
      queue[#queue + 1] = i
    elseif counts[i] == looked_at then
      longer[#longer + 1] = tenant
    else
      ended[#ended + 1] = tenant
    end
  end
  local going_on = {}
  for at = head, #queue do going_on[#going_on + 1] = tenants[queue[at]] end
  for _, tenant in ipairs(longer) do going_on[#going_on + 1] = tenant end
  return going_on, ended
end

-- Whose turn it is: each tenant in turn, with the first job of its line. Returns jobs and their scores.
local function next_turns(lane, number)
  local chosen, taken = {}, {}
  while #chosen < 2 * number do
    local places = number - #chosen / 2
    local tenants = call('LRANGE', TURNS .. lane, 0, places - 1)
    if #tenants == 0 then break end
    local going_on, ended = serve(lane, tenants, places, chosen, taken)
    call('LTRIM', TURNS .. lane, #tenants, -1)
    if #going_on > 0 then call('RPUSH', TURNS .. lane, unpack(going_on)) end
    if #ended > 0 then call('HDEL', LINES .. lane, unpack(ended)) end
  end
  return chosen
end

-- All turns are over. If a job stands in a line nevertheless, then whatever became of the turns, it lines up anew.
local function reline(lane)
  local lost = call('ZRANGEBYSCORE', DUE .. lane, '-inf', '(0', 'LIMIT', 0, LINED_UP)
  if #lost == 0 then return end
  call('DEL', LINES .. lane, TURNS .. lane)
  for _, job_id in ipairs(lost) do make_due(lane, job_id, now) end
end
