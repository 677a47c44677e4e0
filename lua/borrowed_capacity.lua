-- strict buckets: a region owns capacity, fills it at that capacity's rate, and lends parts of it to other regions.
-- Needs rights.lua in front.
--
-- Tokens are counted in quanta of unit x size a unit, so that capacity C fills by rate x C quanta each microsecond.
-- State, kind 0x44: incarnation (4), epoch (6), at_us, level (7 each), lent, borrowed, lent before (6 each), demand as in
-- rights.lua, then rate, unit, size (6 each) of the rule that the level was counted under.
--
-- Size 0 in the strict parameters means a bucket too large and slow to lend from. Its region keeps to its own part: rate
-- and unit are the part's, the one share is what the part holds, and a unit is `unit` quanta.
local CAPACITY = 68
local SMALLEST_LOAN = 20
-- The same as EPOCH_FLOOR_US in tidegate/contract/calendar.py.
local SHORTEST_EPOCH = 600000000

local function epoch_start(params, epoch)
  return epoch * params.length
end

-- Returns the region's own capacity. A raised share counts from a skew into its epoch, when every cut share is in force.
local function own_capacity(params, at)
  local epoch = id_of(params, at)
  local share = rights_share(params, epoch)
  if at >= epoch_start(params, epoch) + params.skew then
    return share
  end
  return math.min(share, rights_share(params, epoch - 1))
end

local function capacity_of(params, state)
  local away = state.at >= epoch_start(params, state.epoch) + params.skew and 0 or state.lent_before
  return math.max(0, own_capacity(params, state.at) + state.borrowed - state.lent - away)
end

local function quanta_per_unit(params)
  return params.unit * math.max(1, params.size)
end

local function fill_rate(params, capacity)
  return params.size == 0 and params.rate or params.rate * capacity
end

local function fill_until(params, state, until_us)
  local capacity = capacity_of(params, state)
  local filled = state.level + fill_rate(params, capacity) * (until_us - state.at)
  state.level = math.min(filled, capacity * quanta_per_unit(params))
  state.at = until_us
end

-- Moves a state to the epochs of a rule whose epochs have another length; `length` is that of the rule before. Borrowed
-- capacity ends at once. Lent capacity stays away until an epoch ends in which no borrower that knows only the rule before
-- can have it any more.
local function renumber(params, state, length)
  local last = state.at
  state.lent, state.borrowed, state.lent_before = state.lent + state.lent_before, 0, 0
  if state.lent > 0 then
    last = math.max(last, (state.epoch + 1) * length - 1)
  end
  state.epoch = id_of(params, last)
  state.level = math.min(state.level, capacity_of(params, state) * quanta_per_unit(params))
end

-- Returns the bucket filled until now; unchanged if the clock stepped back.
local function capacity_load(key, params)
  local quanta = quanta_per_unit(params)
  local oldest = epoch_start(params, id_of(params, now) - 1)
  local state
  local raw = call('GET', key)
  if raw and byte(raw) == CAPACITY and unpack('<I4', raw, 2) == params.incarnation then
    local _, rate, unit, size
    state = {}
    _, state.epoch, state.at, state.level, state.lent, state.borrowed, state.lent_before, state.second, state.units,
      state.units_before, rate, unit, size = unpack('<I4I6I7I7I6I6I6I5I6I6I6I6I6', raw, 2)
    local changed = unit ~= params.unit or size ~= params.size or rate ~= params.rate
    if changed then
      -- Whole tokens survive a change of the limit.
      local max_tokens = params.size == 0 and own_capacity(params, now) or params.size
      state.level = math.min(floor(state.level / (unit * math.max(1, size))), max_tokens) * quanta
      if size > 0 and params.size > 0 then
        -- A loan stays the part of the bucket that it was, as its rate is that part of the limit.
        state.borrowed = floor(state.borrowed * params.size / size)
        state.lent = ceil(state.lent * params.size / size)
        state.lent_before = ceil(state.lent_before * params.size / size)
      end
    end
    -- Without a size, the length of epochs depends on what is not stored.
    if (changed or size == 0) and state.epoch ~= id_of(params, state.at) then
      renumber(params, state, math.max(SHORTEST_EPOCH, ceil(3 * size * unit / rate)))
    end
  else
    state = { at = now, level = 0, lent = 0, borrowed = 0, lent_before = 0, second = 0, units = 0, units_before = 0 }
    if params.birth > 0 then
      state.at = math.min(now, params.birth)
    else
      -- Without a state the bucket was full; what a share that was raised since adds has no tokens yet.
      state.at, state.level = oldest, own_capacity(params, oldest) * quanta
    end
    state.epoch = id_of(params, state.at)
  end
  -- A state older than the epoch before is full: an epoch lasts at least three times as long as filling takes.
  if state.epoch < id_of(params, oldest) then
    state.epoch, state.at, state.lent, state.borrowed, state.lent_before = id_of(params, oldest), oldest, 0, 0, 0
    state.second, state.units, state.units_before = 0, 0, 0
    state.level = math.min(state.level, own_capacity(params, oldest) * quanta)
  end
  while state.at < now do
    local settled = epoch_start(params, state.epoch) + params.skew
    local ends = epoch_start(params, state.epoch + 1)
    local until_us = math.min(now, state.at < settled and settled or ends)
    fill_until(params, state, until_us)
    if until_us == settled and until_us < ends then
      state.lent_before = 0
    elseif until_us == ends then
      -- In the next epoch borrowed capacity ends at once and lent capacity comes back after the skew.
      state.epoch, state.borrowed, state.lent, state.lent_before = state.epoch + 1, 0, 0, state.lent
      state.level = math.min(state.level, capacity_of(params, state) * quanta)
    end
  end
  return state
end

local function capacity_value(params, state)
  return pack('<BI4I6I7I7I6I6I6I5I6I6I6I6I6', CAPACITY, params.incarnation, state.epoch, state.at, state.level,
    state.lent, state.borrowed, state.lent_before, state.second, state.units, state.units_before,
    params.rate, params.unit, params.size)
end

-- The state is kept until the bucket is full and, with capacity lent or borrowed, until a skew past the epoch's end.
local function capacity_ttl_ms(params, state)
  local quanta = quanta_per_unit(params)
  local capacity = capacity_of(params, state)
  local full = state.at + ceil((capacity * quanta - state.level) / fill_rate(params, math.max(1, capacity)))
  if state.lent + state.borrowed + state.lent_before > 0 then
    full = math.max(full, epoch_start(params, state.epoch + 1) + params.skew + floor(quanta / params.rate))
  end
  return math.max(1, ttl_ms(full - now))
end

local function capacity_save(key, params, state)
  call('SET', key, capacity_value(params, state), 'PX', capacity_ttl_ms(params, state))
end

local function capacity_low_water(params, state, cost)
  return math.max(cost, floor(params.horizon * demand_rate(state) / 1000000))
end

-- Takes `cost` tokens. Returns what every algorithm returns (see decide.lua).
local function capacity_decide(key, params, cost, queue)
  if params.rate == 0 then
    return NEVER, 0, 0, 0, 0
  end
  local state = capacity_load(key, params)
  local quanta = quanta_per_unit(params)
  local capacity = capacity_of(params, state)
  local left = floor(state.level / quanta)
  local speed = fill_rate(params, capacity)
  local low = params.size > 0 and LOW or 0
  local full = speed > 0 and ceil((capacity * quanta - state.level) / speed) or 0
  local epoch_ends = epoch_start(params, state.epoch + 1) + params.skew - now
  if cost * quanta > state.level then
    -- Denied demand counts too; otherwise two starving regions would lend to each other back and forth.
    count_demand(state, cost)
    capacity_save(key, params, state)
    if cost > (params.size == 0 and capacity or params.size) then
      return NEVER, left, full, left, full
    end
    local wait = epoch_ends
    if cost <= capacity and speed > 0 then
      wait = math.min(wait, ceil((cost * quanta - state.level) / speed))
    end
    if low > 0 then
      wait, low = strict_denial(key, params, cost, wait)
    else
      wait = -1 - wait
    end
    return wait, left, full + low, left, full + low
  end
  local turn = queue and full or 0
  if cost == 0 then
    return turn, left, full, left, full
  end
  state.level = state.level - cost * quanta
  count_demand(state, cost)
  local after = floor(state.level / quanta)
  local full_after = ceil((capacity * quanta - state.level) / speed)
  if after < capacity_low_water(params, state, cost) and may_ask(key, params) then
    full_after = full_after + low
  end
  return turn, left, full, after, full_after, capacity_value(params, state), capacity_ttl_ms(params, state)
end

-- Returns how many units to lend: towards capacities in the ratio of both demand rates, at most half of this region's
-- capacity, and 0 instead of less than 5% of the bucket's size.
local function units_to_lend(params, state, have, rate)
  local capacity, own_rate = capacity_of(params, state), demand_rate(state)
  local fair = floor((capacity + have) * own_rate / math.max(1, own_rate + rate))
  local units = math.min(capacity - fair, floor(capacity / 2))
  return units >= math.max(1, floor(params.size / SMALLEST_LOAN)) and units or 0
end
