-- Consumes without a check, so that counters may pass their limits: what a node admitted while the store was away, or
-- what a reservation cost beyond its estimate. Each charge is applied once, however often it is sent.
--
-- KEYS[1]  the dirty key
-- KEYS[2]  the charge's own key, in the same slot: present once the charge is done
-- KEYS[3+] counters
-- ARGV[1]  for how long the charge is remembered, in milliseconds; negative: the charge is owed under any shares
-- ARGV[i]  for counter i + 1: cost (double), then its rule in the form of decide.lua
-- Reply    number of counters charged; -1 if the charge was done before; an error, with nothing done, where a charge
--          that may be refused meets a strict limit that this node must not decide (see strict_parameters.lua)
-- A charge empties a bucket at most. A log gets one entry, at now, of at most the largest cost of an entry. A window is
-- charged up to 64 times its limit: its state holds no more and peers would refuse more as implausible.
local MAX_TIMES_LIMIT = 64
local BEYOND_ANY_LIMIT = 562949953421312
local LARGEST_ENTRY = 65535
local CHARGED = { [0] = fixed_window, sliding_window }

local function charged_bucket(key, shared, rate, unit, size, cost, queue)
  local dirty, at, debt, taken, returned, born = 0, now, 0, 0, 0, 0
  local raw = call('GET', key)
  if raw and is_bucket(raw) then
    dirty, at, debt, taken, returned, born = bucket_at(raw, rate, unit, size, queue)
  end
  debt = math.max(debt, math.min(debt + cost * unit, size * unit))
  local fills = at - now + ceil(debt / rate)
  if not shared then
    return bucket_value(0, at, debt, rate, unit, size, 0, 0, 0), math.max(1, ttl_ms(fills))
  end
  -- Peers charge their own buckets at most one bucket's size.
  return bucket_value(1, at, debt, rate, unit, size, taken + math.min(cost, MAX_TIMES_LIMIT * size), returned,
    born > 0 and born or now),
    ttl_ms(fills + SLACK_US), now, dirty
end

-- Charges a strict limit. Units beyond the region's rights become a shortfall, which rights received later pay off.
-- Shares may have changed while the store was away; the charge counts all the same.
local function charged_rights(key, algorithm, packed, cost)
  local params = strict_params(algorithm, packed, KEYS[1], true)
  if not params then
    return nil
  elseif algorithm < 3 then
    local state = rights_load(key, params)
    state.taken = math.max(state.taken, math.min(state.taken + cost, MAX_TIMES_LIMIT * params.limit))
    if algorithm == 2 then
      state.entries = state.entries .. pack('<I7I2', select(2, log_used(state, 0)), math.min(cost, LARGEST_ENTRY))
    end
    return rights_value(params, state), rights_ttl_ms(params, state)
  end
  local state = capacity_load(key, params)
  state.level = math.max(0, state.level - cost * quanta_per_unit(params))
  return capacity_value(params, state), capacity_ttl_ms(params, state)
end

local function charged_window(algorithm, key, shared, limit, b, c, cost)
  local max_units = MAX_TIMES_LIMIT * limit
  local _, left, value, ttl, due, was_dirty
  _, left, _, _, _, value, ttl, due, was_dirty =
    CHARGED[algorithm](key, shared, max_units, b, c, math.min(cost, max_units))
  if not value and cost > 0 and left > 0 then
    _, _, _, _, _, value, ttl, due, was_dirty = CHARGED[algorithm](key, shared, max_units, b, c, left)
  end
  return value, ttl, due, was_dirty
end

local function refused(argument)
  local _, rule, size, _, _, from = unpack('<dBddd', argument)
  local is_strict = rule % 128 >= 32 and rule % 128 < 64
  return is_strict and not strict_params(rule % 8, sub(argument, from, from + size - 1), KEYS[1])
end

local remembered_ms = tonumber(ARGV[1])
for i = 2, #ARGV do
  if remembered_ms > 0 and refused(ARGV[i]) then
    return redis.error_reply('REFUSED a strict limit, by shares older than the marker')
  end
end
if call('GET', KEYS[2]) then
  return -1
end
call('SET', KEYS[2], '', 'PX', math.abs(remembered_ms))
local charged = 0
for i = 3, #KEYS do
  local cost, rule, a, b, c, from = unpack('<dBddd', ARGV[i - 1])
  local algorithm, shared = rule % 8, rule % 32 >= 16
  local value, ttl, due, was_dirty, _
  if rule % 128 >= 32 and rule % 128 < 64 then
    value, ttl = charged_rights(KEYS[i], algorithm, sub(ARGV[i - 1], from, from + a - 1), cost)
  elseif a > 0 and algorithm < 2 then
    value, ttl, due, was_dirty = charged_window(algorithm, KEYS[i], shared, a, b, c, cost)
  elseif a > 0 and algorithm == 2 then
    _, _, _, _, _, value, ttl, due, was_dirty =
      sliding_log(KEYS[i], shared, BEYOND_ANY_LIMIT, b, c, math.min(cost, LARGEST_ENTRY))
  elseif a > 0 then
    value, ttl, due, was_dirty = charged_bucket(KEYS[i], shared, a, b, c, cost, algorithm == 4)
  end
  if value then
    charged = charged + 1
    call('SET', KEYS[i], value, 'PX', ttl)
    if due then
      mark_dirty(KEYS[1], KEYS[i], due, was_dirty)
    end
  end
end
return charged
