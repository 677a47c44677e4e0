-- strict windows and logs: a region spends only rights that it owns. Needs windows.lua and strict_parameters.lua in
-- front.
--
-- State, kind 0x40: incarnation (4), id, taken, net, taken before, net before, net of the next id (6 each, nets signed),
-- demand: second (5), units, units in the second before (6 each). Kind 0x42, a log: the same, then entries of time_us
-- (7), cost (2), oldest first. A state of another incarnation counts as absent. `net` is rights received less given.

local RIGHTS, RIGHTS_LOG = 64, 66
-- Versions before 2026-12 stored windows with an overdraft as 0x44 or 0x45: as 0x40, then 30 bytes that are ignored.
-- Such values are read until their windows end. (A bucket's 0x44 has 78 bytes, see borrowed_capacity.lua.)
local WAS_OVERDRAWN = { [68] = true, [69] = true }
local OVERDRAWN_SIZE = 88
-- Added to a reset time. LOW: ask for more rights. REFUSED: the epoch marker refuses this node.
local LOW, REFUSED = 4503599627370496, 2251799813685248
local REFUSED_WAIT = -1 - 1000000

-- Returns whether a counter may ask for more rights, the agent's back-off note or nil, and whether there is a peer to
-- ask. A counter may not ask without peers (the horizon is 0), without an agent, or during a back-off (see
-- data_plane/rights/low_water.py): the note is '1' if no peer has any rights, '0' if some may have.
local function may_ask(key, params)
  if params.horizon == 0 or call('EXISTS', 'tg:region:state') == 0 then
    return false, nil, false
  end
  local rest = call('GET', 'tg:rest:' .. key)
  return not rest, rest, true
end

-- Returns a denied request's wait, and LOW or 0 to add to its reset time. If a peer may have rights the wait ends with
-- the next answer, about a round trip away; otherwise it is the time until the region's own rights suffice.
local function strict_denial(key, params, cost, wait)
  local may_ask_now, rest, has_peer = may_ask(key, params)
  if has_peer and rest ~= '1' then
    local until_asked = rest and 1000 * math.max(0, call('PTTL', 'tg:rest:' .. key)) or 0
    wait = math.min(wait, math.max(1, until_asked + floor(params.horizon / 3)))
  end
  return -1 - wait, may_ask_now and cost > 0 and LOW or 0
end

-- Units a second, by the busier of the last two seconds.
local function demand_rate(state)
  local second = floor(now / 1000000)
  if second <= state.second then
    return math.max(state.units, state.units_before)
  end
  return second == state.second + 1 and state.units or 0
end

local function count_demand(state, cost)
  local second = floor(now / 1000000)
  if second <= state.second then
    state.units = state.units + cost
  else
    state.units_before = second == state.second + 1 and state.units or 0
    state.second, state.units = second, cost
  end
end

-- Returns the state, rolled forward to the current id. Ids never go back.
local function rights_load(key, params)
  local id = id_of(params, now)
  local state = { id = id, taken = 0, net = 0, taken_before = 0, net_before = 0, net_ahead = 0,
    second = 0, units = 0, units_before = 0, entries = '' }
  local raw = call('GET', key)
  local kind = params.algorithm == 2 and RIGHTS_LOG or RIGHTS
  local is_old = raw and kind == RIGHTS and WAS_OVERDRAWN[byte(raw)] and #raw == OVERDRAWN_SIZE
  if not raw or byte(raw) ~= kind and not is_old or unpack('<I4', raw, 2) ~= params.incarnation then
    return state
  end
  local _, stored, taken, net, taken_before, net_before, net_ahead, from
  _, stored, taken, net, taken_before, net_before, net_ahead, state.second, state.units, state.units_before, from =
    unpack('<I4I6I6i6I6i6i6I5I6I6', raw, 2)
  if kind == RIGHTS_LOG then
    state.entries = sub(raw, from)
  end
  if id <= stored then
    state.id, state.taken, state.net, state.taken_before, state.net_before, state.net_ahead =
      stored, taken, net, taken_before, net_before, net_ahead
  elseif id == stored + 1 then
    state.net, state.taken_before, state.net_before = net_ahead, taken, net
  elseif id == stored + 2 then
    state.net_before = net_ahead
  end
  return state
end

local function rights_value(params, state)
  local kind = params.algorithm == 2 and RIGHTS_LOG or RIGHTS
  return pack('<BI4I6I6i6I6i6i6I5I6I6', kind, params.incarnation, state.id, state.taken, state.net,
    state.taken_before, state.net_before, state.net_ahead, state.second, state.units, state.units_before)
    .. state.entries
end

-- The state lives for two windows and the skew from the start of its newest id.
local function rights_ttl_ms(params, state)
  local newest = state.net_ahead == 0 and state.id or state.id + 1
  return math.max(1, ttl_ms(fixed_start(params.length, params.anchor, newest + 2) + params.skew - now))
end

-- Rights owned under the current id (step 0), the one before (-1) or the next one (1).
local function rights_owned(params, state, step)
  local net = step == 0 and state.net or (step < 0 and state.net_before or state.net_ahead)
  return rights_share(params, state.id + step) + net
end

-- Returns the costs of a log's entries younger than `length`, and the log's clock: now, or its newest entry's time.
local function log_used(state, length)
  local at, size = now, #state.entries
  if size > 0 then
    at = math.max(now, (unpack('<I7', state.entries, size - 8)))
  end
  local used = 0
  for from = 1, size, 9 do
    local entered, cost = unpack('<I7I2', state.entries, from)
    if entered + length > at then
      used = used + cost
    end
  end
  return used, at
end

-- Ticks for which the window before still has weight.
local function ticks_left(params, state)
  local elapsed = floor((now - fixed_start(params.length, params.anchor, state.id)) / params.tick)
  return params.ticks - math.min(math.max(elapsed, 0), params.ticks)
end

-- Units that may be taken now; a shortfall is negative.
local function rights_left(params, state)
  local own = rights_owned(params, state, 0)
  if params.algorithm == 2 then
    return math.min(own, rights_owned(params, state, -1)) - log_used(state, params.length)
  end
  local room = own - state.taken
  if params.algorithm == 1 then
    local left = ticks_left(params, state)
    local before = rights_owned(params, state, -1) - state.taken_before
    room = math.min(room, floor((left * before + (params.ticks - left) * own) / params.ticks) - state.taken)
  end
  return room
end

-- Units a second: the larger of the window's average and the demand rate.
local function rights_demand(params, state)
  local elapsed = math.max(1000000, now - fixed_start(params.length, params.anchor, state.id))
  return math.max(floor(state.taken * 1000000 / elapsed), demand_rate(state))
end

local function rights_low_water(params, state, cost)
  return math.max(cost, floor(params.horizon * rights_demand(params, state) / 1000000))
end

-- Microseconds until `cost` units fit into the rights owned now; at most until the window ends.
local function rights_wait(params, state, cost, ends)
  local own = rights_owned(params, state, 0)
  if params.algorithm == 1 then
    local before = rights_owned(params, state, -1) - state.taken_before
    if own - state.taken >= cost and own > before then
      local left = floor(params.ticks * (own - state.taken - cost) / (own - before))
      return math.min(ends, ends - left * params.tick)
    end
  elseif params.algorithm == 2 then
    local room = rights_left(params, state)
    for from = 1, #state.entries, 9 do
      local entered, entry_cost = unpack('<I7I2', state.entries, from)
      if entered + params.length > now then
        room = room + entry_cost
        if room >= cost then
          return math.max(1, math.min(ends, entered + params.length - now))
        end
      end
    end
  end
  return ends
end

-- Takes `cost` units if the region owns them. Returns what every algorithm returns (see decide.lua).
local function rights_decide(key, params, cost)
  local state = rights_load(key, params)
  local room = rights_left(params, state)
  local left = math.max(0, room)
  local ends = fixed_start(params.length, params.anchor, state.id + 1) - now
  if cost > room then
    if cost > params.limit then
      return NEVER, left, ends, left, ends
    end
    local wait, low = strict_denial(key, params, cost, rights_wait(params, state, cost, ends))
    return wait, left, ends + low, left, ends + low
  elseif cost == 0 then
    return 0, left, ends, left, ends
  end
  state.taken = state.taken + cost
  count_demand(state, cost)
  if params.algorithm == 2 then
    local _, at = log_used(state, 0)
    local from = 1
    while from < #state.entries and unpack('<I7', state.entries, from) + params.length + params.skew <= at do
      from = from + 9
    end
    state.entries = sub(state.entries, from) .. pack('<I7I2', at, cost)
  end
  local after = room - cost
  local ends_after = ends
  if after < rights_low_water(params, state, cost) and may_ask(key, params) then
    ends_after = ends + LOW
  end
  return 0, left, ends, after, ends_after, rights_value(params, state), rights_ttl_ms(params, state)
end
