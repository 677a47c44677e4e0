-- strict windows and logs: a region spends only what it owns. Wants windows and terms in front.
--
-- Hot key, kind 0x40: incarnation (4), id, taken, net, taken before, net before, net of the next id (6 each, nets
-- signed), pace: second (5), units, units in the second before (6 each). Kind 0x42, a log: the same, then entries of
-- time_us (7), cost (2), oldest first. Another incarnation's state is none.

local RIGHTS, RIGHTS_LOG = 64, 66
-- Versions before 2026-12 stored windows with an overdraft as 0x44 or 0x45: as 0x40, then 30 bytes that mean nothing any
-- more. Such a value is read until its windows are over; none is written. (A bucket's 0x44 has 78 bytes, see loans.lua.)
local WAS_OVERDRAWN = { [68] = true, [69] = true }
local OVERDRAWN_SIZE = 88
-- Added to a reset time: ask for more rights; or: the store's marker refused this node.
local LOW, REFUSED = 4503599627370496, 2251799813685248
local REFUSED_WAIT = -1 - 1000000

-- Whether anybody can be asked for more rights of a counter: not where there is no peer (the horizon is 0), no agent, or
-- where an agent has noted that it asks nobody for now (see data_plane/rights/low.py): '1' that nobody has any, '0' that
-- they may have. The second answer is that note, the third whether there is anybody at all.
local function may_ask(key, t)
  if t.horizon == 0 or call('EXISTS', 'tg:region:state') == 0 then
    return false, nil, false
  end
  local rest = call('GET', 'tg:rest:' .. key)
  return not rest, rest, true
end

-- The wait that a denied request is told, and what is added to its reset time: an answer to a question is a round trip
-- away; where nobody has any rights to give, it is what the region's own take.
local function strict_denial(key, t, cost, wait)
  local may, rest, anybody = may_ask(key, t)
  if anybody and rest ~= '1' then
    local until_asked = rest and 1000 * math.max(0, call('PTTL', 'tg:rest:' .. key)) or 0
    wait = math.min(wait, math.max(1, until_asked + floor(t.horizon / 3)))
  end
  return -1 - wait, may and cost > 0 and LOW or 0
end

-- Units a second by the busier of the last two seconds; and those figures with cost units more now.
local function lately(s)
  local second = floor(now / 1000000)
  if second <= s.second then
    return math.max(s.units, s.units_before)
  end
  return second == s.second + 1 and s.units or 0
end

local function quicken(s, cost)
  local second = floor(now / 1000000)
  if second <= s.second then
    s.units = s.units + cost
  else
    s.units_before = second == s.second + 1 and s.units or 0
    s.second, s.units = second, cost
  end
end

-- The state as seen from the id of now; ids never go back.
local function rights_load(key, t)
  local id = id_of(t, now)
  local s = { id = id, taken = 0, net = 0, taken_before = 0, net_before = 0, net_ahead = 0,
    second = 0, units = 0, units_before = 0, entries = '' }
  local raw = call('GET', key)
  local kind = t.algorithm == 2 and RIGHTS_LOG or RIGHTS
  local is_old = raw and kind == RIGHTS and WAS_OVERDRAWN[byte(raw)] and #raw == OVERDRAWN_SIZE
  if not raw or byte(raw) ~= kind and not is_old or unpack('<I4', raw, 2) ~= t.incarnation then
    return s
  end
  local _, stored, taken, net, taken_before, net_before, net_ahead, from
  _, stored, taken, net, taken_before, net_before, net_ahead, s.second, s.units, s.units_before, from =
    unpack('<I4I6I6i6I6i6i6I5I6I6', raw, 2)
  if kind == RIGHTS_LOG then
    s.entries = sub(raw, from)
  end
  if id <= stored then
    s.id, s.taken, s.net, s.taken_before, s.net_before, s.net_ahead =
      stored, taken, net, taken_before, net_before, net_ahead
  elseif id == stored + 1 then
    s.net, s.taken_before, s.net_before = net_ahead, taken, net
  elseif id == stored + 2 then
    s.net_before = net_ahead
  end
  return s
end

local function rights_value(t, s)
  local kind = t.algorithm == 2 and RIGHTS_LOG or RIGHTS
  return pack('<BI4I6I6i6I6i6i6I5I6I6', kind, t.incarnation, s.id, s.taken, s.net, s.taken_before, s.net_before,
    s.net_ahead, s.second, s.units, s.units_before) .. s.entries
end

-- Two windows and the skew past the start of the newest id that anything is known of.
local function rights_ttl_ms(t, s)
  local newest = s.net_ahead == 0 and s.id or s.id + 1
  return math.max(1, ttl_ms(fixed_start(t.length, t.anchor, newest + 2) + t.skew - now))
end

-- O under the current id (0), the one before (-1) or the next one (1).
local function rights_owned(t, s, step)
  local net = step == 0 and s.net or (step < 0 and s.net_before or s.net_ahead)
  return rights_share(t, s.id + step) + net
end

-- A log's clock (entries stay in order), and the costs of its entries that are younger than `length`.
local function log_used(s, length)
  local at, size = now, #s.entries
  if size > 0 then
    at = math.max(now, (unpack('<I7', s.entries, size - 8)))
  end
  local used = 0
  for from = 1, size, 9 do
    local entered, cost = unpack('<I7I2', s.entries, from)
    if entered + length > at then
      used = used + cost
    end
  end
  return used, at
end

-- Ticks of weight that the window before still has.
local function ticks_left(t, s)
  local elapsed = floor((now - fixed_start(t.length, t.anchor, s.id)) / t.tick)
  return t.ticks - math.min(math.max(elapsed, 0), t.ticks)
end

-- Units that may be taken now; negative is a shortfall.
local function rights_spare(t, s)
  local own = rights_owned(t, s, 0)
  if t.algorithm == 2 then
    return math.min(own, rights_owned(t, s, -1)) - log_used(s, t.length)
  end
  local room = own - s.taken
  if t.algorithm == 1 then
    local left = ticks_left(t, s)
    local before = rights_owned(t, s, -1) - s.taken_before
    room = math.min(room, floor((left * before + (t.ticks - left) * own) / t.ticks) - s.taken)
  end
  return room
end

-- Units a second: the window's average, or the busier of the last two seconds.
local function rights_demand(t, s)
  local elapsed = math.max(1000000, now - fixed_start(t.length, t.anchor, s.id))
  return math.max(floor(s.taken * 1000000 / elapsed), lately(s))
end

local function rights_low_water(t, s, cost)
  return math.max(cost, floor(t.horizon * rights_demand(t, s) / 1000000))
end

-- Microseconds until cost units fit into what is owned now, at the latest until the window ends and shares are new.
local function rights_wait(t, s, cost, ends)
  local own = rights_owned(t, s, 0)
  if t.algorithm == 1 then
    local before = rights_owned(t, s, -1) - s.taken_before
    if own - s.taken >= cost and own > before then
      local left = floor(t.ticks * (own - s.taken - cost) / (own - before))
      return math.min(ends, ends - left * t.tick)
    end
  elseif t.algorithm == 2 then
    local room = rights_spare(t, s)
    for from = 1, #s.entries, 9 do
      local entered, entry_cost = unpack('<I7I2', s.entries, from)
      if entered + t.length > now then
        room = room + entry_cost
        if room >= cost then
          return math.max(1, math.min(ends, entered + t.length - now))
        end
      end
    end
  end
  return ends
end

-- Takes cost units if they are owned; answers as the other algorithms do (see decide.lua).
local function rights_decide(key, t, cost)
  local s = rights_load(key, t)
  local room = rights_spare(t, s)
  local left = math.max(0, room)
  local ends = fixed_start(t.length, t.anchor, s.id + 1) - now
  if cost > room then
    if cost > t.limit then
      return NEVER, left, ends, left, ends
    end
    local wait, low = strict_denial(key, t, cost, rights_wait(t, s, cost, ends))
    return wait, left, ends + low, left, ends + low
  elseif cost == 0 then
    return 0, left, ends, left, ends
  end
  s.taken = s.taken + cost
  quicken(s, cost)
  if t.algorithm == 2 then
    local _, at = log_used(s, 0)
    local from = 1
    while from < #s.entries and unpack('<I7', s.entries, from) + t.length + t.skew <= at do
      from = from + 9
    end
    s.entries = sub(s.entries, from) .. pack('<I7I2', at, cost)
  end
  local after = room - cost
  local ends_after = ends
  if after < rights_low_water(t, s, cost) and may_ask(key, t) then
    ends_after = ends + LOW
  end
  return 0, left, ends, after, ends_after, rights_value(t, s), rights_ttl_ms(t, s)
end
