-- Which deliveries may stand in the lanes of their handlers. A tenant has room for so many at once to one handler or kind
-- of target; its webhooks also for so many to one host. The others wait in its backlog, and its hosts take turns.
-- A delivery that was admitted stands in its target's lane, so that workers of a release without admission serve it too.
-- Uses     arguments.per_tenant, arguments.per_host (of webhooks), make_due
-- Gives    due_now, admit_or_wait, leave_admission, admit_waiting, admit_next
local due_now = {}  -- lanes that have work due now
local vacated = {}  -- scopes that have room again, or something new that waits
local RECHECK_MS = 5000  -- until what is full is looked at again, though none of its deliveries was seen to end
local PRUNED = 128  -- entries that are checked together

-- What shares room: a tenant's deliveries to one handler or kind of target; of webhooks also the host. No tenant's name has
-- a slash, and no host a space.
local function scope_of(tenant, target)
  local host = string.match(target, '^https?://[^/]+') or ''
  local kind = host ~= '' and 'https:' or string.match(target, '^%a+:') or target
  return (tenant or '') .. '/' .. kind, host
end

local function of_host(scope, host) return scope .. ' ' .. host end

-- No clock is woken for what has waited: more is admitted meanwhile, and batches are worth their message.
local function admit(scope, host, delivery_id, target)
  local lane = deliver_lane(target)
  call('ZADD', ADMITTED .. scope, now, delivery_id)
  if host ~= '' then call('ZADD', ADMITTED .. of_host(scope, host), now, delivery_id) end
  make_due(lane, delivery_id, now)
  return lane
end

local function wait_for_turn(scope, host, delivery_id, at)
  call('ZADD', BACKLOG .. of_host(scope, host), at, delivery_id)
  call('ZADD', BACKLOG_ALL, at, delivery_id)
  call('ZADD', BACKLOG_HOSTS .. scope, 'LT', at, host)
  call('ZADD', BACKLOGS, 'LT', at, scope)
end

local function is_full(scope, host)
  if call('ZCARD', ADMITTED .. scope) >= arguments.per_tenant then return true end
  return host ~= '' and call('ZCARD', ADMITTED .. of_host(scope, host)) >= arguments.per_host
end

-- Let a delivery into its lane, or let it wait: for its time, or for room.
local function admit_or_wait(tenant, delivery_id, target, at)
  local scope, host = scope_of(tenant, target)
  if at <= now and not is_full(scope, host) then
    due_now[admit(scope, host, delivery_id, target)] = true
  else
    wait_for_turn(scope, host, delivery_id, at)
  end
end

-- A delivery has left its lane, settled, to be retried or forgotten: others have its room.
local function leave_admission(tenant, delivery_id, target)
  local scope, host = scope_of(tenant, target)
  call('ZREM', ADMITTED .. scope, delivery_id)
  if host ~= '' then call('ZREM', ADMITTED .. of_host(scope, host), delivery_id) end
  if call('ZREM', BACKLOG .. of_host(scope, host), delivery_id) == 1 then call('ZREM', BACKLOG_ALL, delivery_id) end
  local first = call('ZRANGE', BACKLOG .. of_host(scope, host), 0, 0, 'WITHSCORES')
  if first[2] then call('ZADD', BACKLOG_HOSTS .. scope, 'LT', math.max(now, first[2]), host) end
  vacated[scope] = true
  -- Else a lane for each target would wait for the end of a lease that is over.
  local lane = deliver_lane(target)
  if call('EXISTS', DUE .. lane, LEASED .. lane) == 0 then call('ZREM', LANES, lane) end
end

-- A worker of a release without admission does not say when a delivery ends.
local function stands_in_lane(delivery_id)
  local state, target = get(DELIVERY .. delivery_id, delivery_field.state, delivery_field.target)
  if state ~= 'pending' then return false end
  local lane = deliver_lane(target)
  if call('ZSCORE', LEASED .. lane, delivery_id) then return true end
  local due = call('ZSCORE', DUE .. lane, delivery_id)
  return due and tonumber(due) <= now
end

local function prune(admitted)
  for _, delivery_id in ipairs(call('ZRANGEBYSCORE', admitted, '-inf', now - RECHECK_MS, 'LIMIT', 0, PRUNED)) do
    if stands_in_lane(delivery_id) then
      call('ZADD', admitted, 'XX', now, delivery_id)
    else
      call('ZREM', admitted, delivery_id)
    end
  end
end

-- Admit the next one of a host, if it has room; and when the host has its next turn.
local function admit_one(scope, host)
  local backlog, hosts = BACKLOG .. of_host(scope, host), BACKLOG_HOSTS .. scope
  if is_full(scope, host) then
    if host ~= '' then prune(ADMITTED .. of_host(scope, host)) end
    call('ZADD', hosts, now + RECHECK_MS, host)
    return
  end
  local first = call('ZRANGE', backlog, 0, 1, 'WITHSCORES')
  local delivery_id = first[1]
  if delivery_id and tonumber(first[2]) <= now then
    call('ZREM', backlog, delivery_id)
    call('ZREM', BACKLOG_ALL, delivery_id)
    local target = call('HGET', DELIVERY .. delivery_id, delivery_field.target)
    if target then admit(scope, host, delivery_id, target) end
    table.remove(first, 1)
    table.remove(first, 1)
  end
  if first[2] then
    call('ZADD', hosts, math.max(now, first[2]), host)
  else
    call('ZREM', hosts, host)
  end
end

-- Admit what waits in a scope, as far as there is room: one delivery of each host, then one of each again. Says in BACKLOGS
-- when the scope must be looked at again.
local function admit_waiting(scope)
  local hosts, admitted = BACKLOG_HOSTS .. scope, ADMITTED .. scope
  if call('ZCARD', admitted) >= arguments.per_tenant then prune(admitted) end
  local room = arguments.per_tenant - call('ZCARD', admitted)
  while room > 0 do
    local turns = call('ZRANGEBYSCORE', hosts, '-inf', now, 'LIMIT', 0, room)
    if #turns == 0 then break end
    for _, host in ipairs(turns) do admit_one(scope, host) end
    room = arguments.per_tenant - call('ZCARD', admitted)
  end
  local first = call('ZRANGE', hosts, 0, 0, 'WITHSCORES')
  if not first[2] then
    call('ZREM', BACKLOGS, scope)
  else
    local at = tonumber(first[2])
    call('ZADD', BACKLOGS, at <= now and now + RECHECK_MS or at, scope)
  end
end

-- Let the next ones take the room of those that this script has seen leave.
local function admit_next()
  for scope in pairs(vacated) do
    if call('EXISTS', BACKLOG_HOSTS .. scope) == 1 then admit_waiting(scope) end
  end
end
