-- Consumes without asking whether it fits: what a node admitted while the store was away, or what a reservation cost
-- beyond its estimate. A charge that comes again, because its answer was lost or its node died, takes nothing.
--
-- KEYS[1]  the dirty key
-- KEYS[2]  the charge's own key, in the same slot: there once it has been done
-- KEYS[3+] counters
-- ARGV[1]  for how long the charge is remembered, in milliseconds; below 0: for as long, and it is owed by whatever shares
-- ARGV[i]  for counter i + 1: cost (double), then its rule as decide.lua takes it
-- Reply    how many counters were charged; -1 when it had been done before; an error, with nothing done, where a charge
--          that may be refused is on a strict limit and this node must not decide (see terms.lua): another node may
-- A bucket is emptied at most. A log takes one entry, at now, of as much as one can hold. A window is charged up to 64
-- times its limit: more would neither fit its state nor be believed by peers.
local MOST_TIMES = 64
local BEYOND_ANY_LIMIT = 562949953421312
local LARGEST_ENTRY = 65535
local CHARGED = { [0] = fixed_window, sliding_window }

local function charged_bucket(key, shared, rate, unit, size, cost)
  local dirty, at, debt, taken, returned, born = 0, now, 0, 0, 0, 0
  local raw = call('GET', key)
  if raw and is_bucket(raw) then
    local old_rate, old_unit, old_size
    dirty, at, debt, old_rate, old_unit, old_size, taken, returned, born = bucket_state(raw)
    debt = carried_debt(false, debt, old_unit, old_size, unit, size)
  end
  debt = math.max(debt, math.min(debt + cost * unit, size * unit))
  local fills = at - now + ceil(debt / rate)
  if not shared then
    return bucket_value(0, at, debt, rate, unit, size, 0, 0, 0), math.max(1, ttl_ms(fills))
  end
  -- peers take from their buckets what one can hold at most
  return bucket_value(1, at, debt, rate, unit, size, taken + math.min(cost, MOST_TIMES * size), returned,
    born > 0 and born or now),
    ttl_ms(fills + SLACK_US), now, dirty
end

-- Rights are not asked about either: what was taken beyond them is a shortfall, which comes off what comes in. Shares may
-- have changed while the store was away: what was admitted then is owed all the same.
local function charged_rights(key, algorithm, packed, cost)
  local t = strict_terms(algorithm, packed, KEYS[1], true)
  if not t then
    return nil
  elseif algorithm < 3 then
    local s = rights_load(key, t)
    s.taken = math.max(s.taken, math.min(s.taken + cost, MOST_TIMES * t.limit))
    if algorithm == 2 then
      s.entries = s.entries .. pack('<I7I2', select(2, log_used(s, 0)), math.min(cost, LARGEST_ENTRY))
    end
    return rights_value(t, s), rights_ttl_ms(t, s)
  end
  local s = loan_load(key, t)
  s.level = math.max(0, s.level - cost * loan_quanta(t))
  return loan_value(t, s), loan_ttl_ms(t, s)
end

local function charged_window(algorithm, key, shared, limit, b, c, cost)
  local most = MOST_TIMES * limit
  local _, left, value, ttl, due, was
  _, left, _, _, _, value, ttl, due, was = CHARGED[algorithm](key, shared, most, b, c, math.min(cost, most))
  if not value and cost > 0 and left > 0 then
    _, _, _, _, _, value, ttl, due, was = CHARGED[algorithm](key, shared, most, b, c, left)
  end
  return value, ttl, due, was
end

local function refused(argument)
  local _, rule, size, _, _, from = unpack('<dBddd', argument)
  return rule % 128 >= 32 and rule % 128 < 64 and not strict_terms(rule % 8, sub(argument, from, from + size - 1), KEYS[1])
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
  local value, ttl, due, was, _
  if rule % 128 >= 32 and rule % 128 < 64 then
    value, ttl = charged_rights(KEYS[i], algorithm, sub(ARGV[i - 1], from, from + a - 1), cost)
  elseif a > 0 and algorithm < 2 then
    value, ttl, due, was = charged_window(algorithm, KEYS[i], shared, a, b, c, cost)
  elseif a > 0 and algorithm == 2 then
    _, _, _, _, _, value, ttl, due, was =
      sliding_log(KEYS[i], shared, BEYOND_ANY_LIMIT, b, c, math.min(cost, LARGEST_ENTRY))
  elseif a > 0 then
    value, ttl, due, was = charged_bucket(KEYS[i], shared, a, b, c, cost)
  end
  if value then
    charged = charged + 1
    call('SET', KEYS[i], value, 'PX', ttl)
    if due then
      mark_dirty(KEYS[1], KEYS[i], due, was)
    end
  end
end
return charged
