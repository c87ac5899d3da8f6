-- Tenants' lines in submit lanes. A tenant's jobs that are due stand in its line, the best first; tenants take turns, and
-- at its turn a tenant's first job goes. So priorities order a tenant's own jobs only.
-- Uses     call, get, FIRST_TIME (prelude.lua), NORMAL_PRIORITY
-- Gives    LINE_WIDTH, line_start, line_up
--
-- A line is a range of LINE_WIDTH scores below 0 in the lane's due set: for each priority a SECTION of jobs that had their
-- turn before, and one of the others, each in the order in which they came. LINES has the number of each tenant's line;
-- TURNS lists the tenants that have one, the next first. The first score is of the tenant that has had a line the longest.
-- Redis writes whole numbers below 2^52 as such; other scores cost it more.
local LINE_WIDTH, SECTION, LINES_MAX = 1e10, 5e8, 4.5e5

local function line_start(number) return (number - 1 - LINES_MAX) * LINE_WIDTH end

-- Where a tenant's line begins. One that has none gets a free range, and its turn after all others.
local function line_of(lane, tenant)
  local number = call('HGET', LINES .. lane, tenant)
  if number then return line_start(number) end
  local start
  for _ = 1, 100 do
    number = call('HINCRBY', LINES .. lane, '/lines', 1) % LINES_MAX + 1
    start = line_start(number)
    if #call('ZRANGEBYSCORE', DUE .. lane, start, start + LINE_WIDTH - 1, 'LIMIT', 0, 1) == 0 then break end
  end
  call('HSET', LINES .. lane, tenant, number)
  call('RPUSH', TURNS .. lane, tenant)
  return start
end

-- `again`: the job had its turn before.
local function line_up(lane, job_id, tenant, priority, again)
  local section = 2 * (9 - priority) + (again and 0 or 1)
  local place = call('HINCRBY', LINES .. lane, '/places', 1) % SECTION
  call('ZADD', DUE .. lane, line_of(lane, tenant or '') + section * SECTION + place, job_id)
end
