-- token_bucket and leaky_bucket: the generic cell rate algorithm on exact fractions. Units taken become a debt in
-- quanta: a unit of cost is `unit` quanta, and `rate` quanta drain each microsecond (limit / window in lowest terms is
-- rate / unit), so every fraction is kept. The bucket holds `size` units; without debt it is full and needs no state.
-- The stored debt carries the rule that it was counted under, so that a changed rule takes over what is left.

local EXACT = 4503599627370496
-- Six bytes hold microseconds from 2023 to 2031; a bucket that is full after 2031 is written at full length.
local BASE_US = 1672531200000000
local SIX_BYTES = 281474976710656

-- Converts a debt to a new rule: a token bucket keeps its tokens, a queue keeps its waiting units, both up to the new
-- size. What peers took beyond the old size is owed on. Where the unit changes, at most a fraction of one unit is lost
-- and none is gained.
local function carried_debt(queue, debt, old_unit, old_size, unit, size)
  if old_unit == unit and old_size == size then
    return debt
  elseif queue then
    if old_unit ~= unit then
      debt = ceil(debt / old_unit) * unit
    end
    local beyond = math.max(0, debt - old_size * unit)
    return math.min(math.min(debt - beyond, size * unit) + beyond, EXACT)
  end
  local tokens = old_size * old_unit - debt
  if old_unit ~= unit then
    tokens = math.min(floor(tokens / old_unit), size) * unit
  end
  return math.min(size * unit - math.min(tokens, size * unit), EXACT)
end

-- Converts a bucket written by a version before 2026-12 (see prelude.lua) to the layout that is written now.
local function of_old_layout(raw)
  local kind = byte(raw)
  local full_at, unit, size
  if kind < 34 then
    return pack('<BI7I7I6I6I6', 34, unpack('<I7I7I4I4I4', raw, 2))
  elseif kind < 40 then
    full_at, unit, size = unpack('<I7I4I3', raw, 2)
  else
    full_at, unit, size = unpack('<I6I3I3', raw, 2)
    full_at = full_at + BASE_US
  end
  return pack('<BI7I7I6I6I6', 34, now, math.max(0, full_at - now), 1, unit, size)
end

-- Returns the stored bucket, drained until now: dirty, at, debt, rate, unit, size, taken, returned, born. `at` is now,
-- or later if the clock stepped back; then the debt at now is larger by rate x (at - now).
local function bucket_state(raw)
  local kind = byte(raw)
  local at, debt, rate, unit, size
  local taken, returned, born = 0, 0, 0
  if kind == 42 then
    at, unit, size = unpack('<I6I4I2', raw, 2)
    return 0, now, math.max(0, at + BASE_US - now), 1, unit, size, taken, returned, born
  elseif kind == 34 then
    at, debt, rate, unit, size = unpack('<I7I7I6I6I6', raw, 2)
  elseif kind == 36 or kind == 37 then
    at, debt, rate, unit, size, taken, returned, born = unpack('<I7I7I6I6I6I6I6I7', raw, 2)
  else
    return bucket_state(of_old_layout(raw))
  end
  if now > at then
    debt = debt - rate * (now - at)
    at = now
    if debt < 0 then
      debt = 0
    end
  end
  return kind % 2, at, debt, rate, unit, size, taken, returned, born
end

local function bucket_value(dirty, at, debt, rate, unit, size, taken, returned, born)
  if born > 0 then
    return pack('<BI7I7I6I6I6I6I6I7', 36 + dirty, at, debt, rate, unit, size, taken, returned, born)
  elseif rate == 1 and unit < 4294967296 and size < 65536 then
    local full_at = at + debt - BASE_US
    if full_at >= 0 and full_at < SIX_BYTES then
      return pack('<BI6I4I2', 42, full_at, unit, size)
    end
  end
  return pack('<BI7I7I6I6I6', 34, at, debt, rate, unit, size)
end

-- Returns the bucket under the current rule: dirty, at, debt, taken, returned, born, and whether its rule changed.
local function bucket_at(raw, rate, unit, size, queue)
  local dirty, at, debt, old_rate, old_unit, old_size, taken, returned, born = bucket_state(raw)
  local changed = (debt > 0 or at > now) and (old_rate ~= rate or old_unit ~= unit or old_size ~= size)
  if changed then
    if at > now or born == 0 then
      -- After a clock step back the debt looks larger than the bucket.
      debt = math.min(debt + old_rate * (at - now), old_size * old_unit)
      at = now
    end
    debt = carried_debt(queue, debt, old_unit, old_size, unit, size)
  end
  return dirty, at, debt, taken, returned, born, changed
end

local function bucket(key, shared, rate, unit, size, cost, queue)
  if rate == 0 then
    return NEVER, 0, 0, 0, 0
  end
  local dirty, at, debt, taken, returned, born, changed = 0, now, 0, 0, 0, 0, false
  local raw = call('GET', key)
  if raw then
    local full_at, old_unit, old_size
    if byte(raw) == 42 then
      full_at, old_unit, old_size = unpack('<I6I4I2', raw, 2)
    end
    if old_unit == unit and old_size == size and rate == 1 then
      -- Fast path: the commonest layout under an unchanged rule.
      debt = full_at + BASE_US - now
      if debt < 0 then
        debt = 0
      end
    elseif is_bucket(raw) then
      dirty, at, debt, taken, returned, born, changed = bucket_at(raw, rate, unit, size, queue)
    end
  end
  local full = size * unit
  local behind = at - now
  local fills = behind + ceil(debt / rate)
  local room = full - debt - rate * behind
  local left = room > 0 and floor(room / unit) or 0
  if cost > size then
    return NEVER, left, fills, left, fills
  end
  -- Store a changed rule at the first attempt, also a denied one: from then on the debt drains by the new rule.
  if changed and cost > 0 then
    call('SET', key, bucket_value(dirty, at, debt, rate, unit, size, taken, returned, born), 'PX',
      math.max(1, ttl_ms(fills + (born > 0 and SLACK_US or 0))))
  end
  local need = cost * unit
  if need > room then
    return -1 - (behind + ceil((debt + need - full) / rate)), left, fills, left, fills
  end
  local turn = queue and fills or 0
  if cost == 0 then
    return turn, left, fills, left, fills
  end
  local owed = debt + need
  local fills_after = behind + ceil(owed / rate)
  if not shared then
    return turn, left, fills, floor((room - need) / unit), fills_after,
      bucket_value(0, at, owed, rate, unit, size, 0, 0, 0), ttl_ms(fills_after)
  end
  if born == 0 then
    born = now
  end
  local after = floor((room - need) / unit)
  return turn, left, fills, after, fills_after,
    bucket_value(1, at, owed, rate, unit, size, taken + cost, returned, born), ttl_ms(fills_after + SLACK_US),
    due_after(dirty, taken + cost - returned, after, cost)
end

local function token_bucket(key, shared, rate, unit, size, cost)
  return bucket(key, shared, rate, unit, size, cost, false)
end

local function leaky_bucket(key, shared, rate, unit, size, cost)
  return bucket(key, shared, rate, unit, size, cost, true)
end
