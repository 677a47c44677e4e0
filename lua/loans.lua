-- strict buckets: a region owns capacity, fills it at the rate of that capacity, and lends parts of it. Wants
-- rights in front.
--
-- Tokens are counted in quanta of unit x size a unit, so that capacity C fills by rate x C quanta each microsecond.
-- Hot key, kind 0x44: incarnation (4), epoch (6), at_us, level (7 each), lent, borrowed, lent before (6 each), pace as
-- in rights, then rate, unit, size (6 each): the rule that the level was counted under.
--
-- Terms with size 0: a bucket too large and slow to lend of. Its region keeps to its own part; rate and unit are the
-- part's, the one share is all that the part holds, and a unit is `unit` quanta.
local LOAN = 68
local SMALLEST_LOAN = 20

local function epoch_start(t, epoch)
  return epoch * t.length
end

-- Capacity without loans. A raised share counts a skew into its epoch: every cut holds by then.
local function loan_base(t, at)
  local epoch = id_of(t, at)
  local share = rights_share(t, epoch)
  if at >= epoch_start(t, epoch) + t.skew then
    return share
  end
  return math.min(share, rights_share(t, epoch - 1))
end

local function loan_capacity(t, s)
  local away = s.at >= epoch_start(t, s.epoch) + t.skew and 0 or s.lent_before
  return math.max(0, loan_base(t, s.at) + s.borrowed - s.lent - away)
end

local function loan_quanta(t)
  return t.unit * math.max(1, t.size)
end

local function loan_speed(t, capacity)
  return t.size == 0 and t.rate or t.rate * capacity
end

local function loan_filled(t, s, until_us)
  local capacity = loan_capacity(t, s)
  s.level = math.min(s.level + loan_speed(t, capacity) * (until_us - s.at), capacity * loan_quanta(t))
  s.at = until_us
end

-- The bucket as of now. A clock that stepped back finds it as it was.
local function loan_load(key, t)
  local quanta = loan_quanta(t)
  local s
  local raw = call('GET', key)
  if raw and byte(raw) == LOAN and unpack('<I4', raw, 2) == t.incarnation then
    local _, rate, unit, size
    s = {}
    _, s.epoch, s.at, s.level, s.lent, s.borrowed, s.lent_before, s.second, s.units, s.units_before, rate, unit, size =
      unpack('<I4I6I7I7I6I6I6I5I6I6I6I6I6', raw, 2)
    if unit ~= t.unit or size ~= t.size or rate ~= t.rate then
      -- Whole tokens survive a change of the limit.
      local most = t.size == 0 and loan_base(t, now) or t.size
      s.level = math.min(floor(s.level / (unit * math.max(1, size))), most) * quanta
    end
  else
    s = { at = now, level = 0, lent = 0, borrowed = 0, lent_before = 0, second = 0, units = 0, units_before = 0 }
    if t.birth > 0 then
      s.at = math.min(now, t.birth)
    else
      s.level = loan_base(t, now) * quanta
    end
    s.epoch = id_of(t, s.at)
  end
  -- Longer ago than two epochs it is full anyway: an epoch is at least three times what filling takes.
  local oldest = epoch_start(t, id_of(t, now) - 1)
  if s.at < oldest then
    s.epoch, s.at, s.lent, s.borrowed, s.lent_before = id_of(t, oldest), oldest, 0, 0, 0
    s.second, s.units, s.units_before = 0, 0, 0
    s.level = math.min(s.level, loan_base(t, oldest) * quanta)
  end
  while s.at < now do
    local settled = epoch_start(t, s.epoch) + t.skew
    local ends = epoch_start(t, s.epoch + 1)
    local until_us = math.min(now, s.at < settled and settled or ends)
    loan_filled(t, s, until_us)
    if until_us == settled and until_us < ends then
      s.lent_before = 0
    elseif until_us == ends then
      -- The next epoch: what was borrowed is gone at once, what was lent comes back after the skew.
      s.epoch, s.borrowed, s.lent, s.lent_before = s.epoch + 1, 0, 0, s.lent
      s.level = math.min(s.level, loan_capacity(t, s) * quanta)
    end
  end
  return s
end

local function loan_value(t, s)
  return pack('<BI4I6I7I7I6I6I6I5I6I6I6I6I6', LOAN, t.incarnation, s.epoch, s.at, s.level, s.lent, s.borrowed,
    s.lent_before, s.second, s.units, s.units_before, t.rate, t.unit, t.size)
end

-- From there on the state means the same as none: full, and with loans a skew past the epoch's end at least.
local function loan_ttl_ms(t, s)
  local quanta = loan_quanta(t)
  local capacity = loan_capacity(t, s)
  local full = s.at + ceil((capacity * quanta - s.level) / loan_speed(t, math.max(1, capacity)))
  if s.lent + s.borrowed + s.lent_before > 0 then
    full = math.max(full, epoch_start(t, s.epoch + 1) + t.skew + floor(quanta / t.rate))
  end
  return math.max(1, ttl_ms(full - now))
end

local function loan_save(key, t, s)
  call('SET', key, loan_value(t, s), 'PX', loan_ttl_ms(t, s))
end

local function loan_low_water(t, s, cost)
  return math.max(cost, floor(t.horizon * lately(s) / 1000000))
end

-- Takes cost units of tokens; answers as the other algorithms do (see decide.lua).
local function loan_decide(key, t, cost, queue)
  if t.rate == 0 then
    return NEVER, 0, 0, 0, 0
  end
  local s = loan_load(key, t)
  local quanta = loan_quanta(t)
  local capacity = loan_capacity(t, s)
  local left = floor(s.level / quanta)
  local speed = loan_speed(t, capacity)
  local low = t.size > 0 and LOW or 0
  local full = speed > 0 and ceil((capacity * quanta - s.level) / speed) or 0
  local epoch_ends = epoch_start(t, s.epoch + 1) + t.skew - now
  if cost * quanta > s.level then
    -- Demand counts even when denied, or two starving regions would lend to and fro for ever.
    quicken(s, cost)
    loan_save(key, t, s)
    if cost > (t.size == 0 and capacity or t.size) then
      return NEVER, left, full, left, full
    end
    local wait = epoch_ends
    if cost <= capacity and speed > 0 then
      wait = math.min(wait, ceil((cost * quanta - s.level) / speed))
    end
    if low > 0 then
      wait, low = strict_denial(key, t, cost, wait)
    else
      wait = -1 - wait
    end
    return wait, left, full + low, left, full + low
  end
  local turn = queue and full or 0
  if cost == 0 then
    return turn, left, full, left, full
  end
  s.level = s.level - cost * quanta
  quicken(s, cost)
  local after = floor(s.level / quanta)
  local full_after = ceil((capacity * quanta - s.level) / speed)
  if after < loan_low_water(t, s, cost) and may_ask(key, t) then
    full_after = full_after + low
  end
  return turn, left, full, after, full_after, loan_value(t, s), loan_ttl_ms(t, s)
end

-- What to lend: towards capacities in the ratio of the two rates, at most half, nothing under 5% of the whole.
local function loan_size(t, s, have, rate)
  local capacity, own_rate = loan_capacity(t, s), lately(s)
  local fair = floor((capacity + have) * own_rate / math.max(1, own_rate + rate))
  local units = math.min(capacity - fair, floor(capacity / 2))
  return units >= math.max(1, floor(t.size / SMALLEST_LOAN)) and units or 0
end
