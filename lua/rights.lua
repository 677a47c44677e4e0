-- strict windows: a region spends only what it owns. The mirror, step by step, of data_plane/domain/regions/rights.py
-- and transfers.py for fixed_window and sliding_window without overdraft. Wants prelude and windows in front.
--
-- Hot key, kind 0x40: incarnation (4), id, taken, net, taken before, net before, net of the next id (6 each, nets
-- signed), pace: second (5), units, units in the second before (6 each). Another incarnation's state is none.
-- Second key, kind 0x48 (the book): incarnation (4), then entries: what (1: 1 given, 2 received), the peer's name
-- (1 + n), the peer's incarnation (4), id (6), units (6). Entries two ids old are dropped at the next write.
--
-- Terms travel packed: algorithm (1: 0 fixed, 1 sliding), length_us (0: months), anchor_us, ticks, tick_us (8 each,
-- doubles as all that follow), incarnation, quiet_id, skew_us, horizon_us, number of quotas (1), then from_id and share
-- of each, oldest first.

local RIGHTS, BOOK = 64, 72

local function rights_terms(packed)
  local t = { quotas = {} }
  local count, from
  t.algorithm, t.length, t.anchor, t.ticks, t.tick, t.incarnation, t.quiet, t.skew, t.horizon, count, from =
    unpack('<BddddddddB', packed)
  for i = 1, count do
    local from_id, share
    from_id, share, from = unpack('<dd', packed, from)
    t.quotas[i] = { from_id, share }
  end
  return t
end

-- E: what the region owns of its own under an id.
local function rights_share(t, id)
  if id <= t.quiet then
    return 0
  end
  for i = #t.quotas, 1, -1 do
    if t.quotas[i][1] <= id then
      return t.quotas[i][2]
    end
  end
  return t.quotas[1][2]
end

-- The state as seen from the id of now; ids never go back.
local function rights_load(key, t)
  local id = fixed_id(t.length, t.anchor, now)
  local s = { id = id, taken = 0, net = 0, taken_before = 0, net_before = 0, net_ahead = 0,
    second = 0, units = 0, units_before = 0 }
  local raw = call('GET', key)
  if not raw or byte(raw) ~= RIGHTS or unpack('<I4', raw, 2) ~= t.incarnation then
    return s
  end
  local _, stored, taken, net, taken_before, net_before, net_ahead
  _, stored, taken, net, taken_before, net_before, net_ahead, s.second, s.units, s.units_before =
    unpack('<I4I6I6i6I6i6i6I5I6I6', raw, 2)
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
  return pack('<BI4I6I6i6I6i6i6I5I6I6', RIGHTS, t.incarnation, s.id, s.taken, s.net, s.taken_before, s.net_before,
    s.net_ahead, s.second, s.units, s.units_before)
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

-- Units that may be taken now, and so be given; negative is a shortfall.
local function rights_spare(t, s)
  local own = rights_owned(t, s, 0)
  local room = own - s.taken
  if t.algorithm == 1 then
    local elapsed = floor((now - fixed_start(t.length, t.anchor, s.id)) / t.tick)
    local left = t.ticks - math.min(math.max(elapsed, 0), t.ticks)
    local before = rights_owned(t, s, -1) - s.taken_before
    room = math.min(room, floor((left * before + (t.ticks - left) * own) / t.ticks) - s.taken)
  end
  return room
end

-- Units a second: the window's average, or the busier of the last two seconds.
local function rights_demand(t, s)
  local elapsed = math.max(1000000, now - fixed_start(t.length, t.anchor, s.id))
  local second = floor(now / 1000000)
  local lately = 0
  if second <= s.second then
    lately = math.max(s.units, s.units_before)
  elseif second == s.second + 1 then
    lately = s.units
  end
  return math.max(floor(s.taken * 1000000 / elapsed), lately)
end

local function rights_low_water(t, s, cost)
  return math.max(cost, floor(t.horizon * rights_demand(t, s) / 1000000))
end

-- Take cost units if they are owned: allowed, id, remaining, low, and (where something is to be stored) value, ttl_ms.
local function rights_decide(key, t, cost)
  local s = rights_load(key, t)
  local room = rights_spare(t, s)
  if cost > room then
    return false, s.id, math.max(0, room), cost > 0
  elseif cost == 0 then
    return true, s.id, math.max(0, room), false
  end
  s.taken = s.taken + cost
  local second = floor(now / 1000000)
  if second <= s.second then
    s.units = s.units + cost
  else
    s.units_before = second == s.second + 1 and s.units or 0
    s.second, s.units = second, cost
  end
  local left = math.max(0, room - cost)
  return true, s.id, left, left < rights_low_water(t, s, cost), rights_value(t, s), rights_ttl_ms(t, s)
end

-- The book: a list of { what, name, incarnation, id, units }.
local function book_load(key, t)
  local raw = call('GET', key)
  local entries = {}
  if not raw or byte(raw) ~= BOOK or unpack('<I4', raw, 2) ~= t.incarnation then
    return entries
  end
  local from = 6
  while from <= #raw do
    local what, size
    what, size, from = unpack('<BB', raw, from)
    local name = sub(raw, from, from + size - 1)
    local incarnation, id, units
    incarnation, id, units, from = unpack('<I4I6I6', raw, from + size)
    entries[#entries + 1] = { what, name, incarnation, id, units }
  end
  return entries
end

local function book_units(entries, what, name, incarnation, id)
  for _, entry in ipairs(entries) do
    if entry[1] == what and entry[2] == name and entry[3] == incarnation and entry[4] == id then
      return entry[5]
    end
  end
  return 0
end

-- Write the book with one entry replaced. It lives as long as any id that it may speak of.
local function book_save(key, t, s, entries, what, name, incarnation, id, units)
  local parts = { pack('<BI4', BOOK, t.incarnation) }
  for _, e in ipairs(entries) do
    if e[4] >= s.id - 1 and not (e[1] == what and e[2] == name and e[3] == incarnation and e[4] == id) then
      parts[#parts + 1] = pack('<BB', e[1], #e[2]) .. e[2] .. pack('<I4I6I6', e[3], e[4], e[5])
    end
  end
  parts[#parts + 1] = pack('<BB', what, #name) .. name .. pack('<I4I6I6', incarnation, id, units)
  local ttl = ttl_ms(fixed_start(t.length, t.anchor, s.id + 3) + t.skew - now)
  call('SET', key, table.concat(parts), 'PX', math.max(1, ttl))
end

local function rights_save(key, t, s)
  call('SET', key, rights_value(t, s), 'PX', rights_ttl_ms(t, s))
end

-- Answer a question for rights of `id` by (name, incarnation), who knows of `known` units given by `to_incarnation`:
-- the total ever given it, what is left, whether there was nothing to add.
local function rights_give(key, book_key, t, name, incarnation, id, to_incarnation, known)
  local s = rights_load(key, t)
  local entries = book_load(book_key, t)
  local total = book_units(entries, 1, name, incarnation, id)
  local knows_all = total == (to_incarnation == t.incarnation and known or 0)
  local left = 0
  if id == s.id then
    left = rights_spare(t, s)
  elseif id == s.id + 1 and now + t.skew >= fixed_start(t.length, t.anchor, id) then
    left = rights_owned(t, s, 1)
  end
  local units = 0
  if knows_all and left > 0 then
    units = math.max(1, floor(left / 2))
    total = total + units
    if id == s.id then
      s.net = s.net - units
    else
      s.net_ahead = s.net_ahead - units
    end
    rights_save(key, t, s)
    book_save(book_key, t, s, entries, 1, name, incarnation, id, total)
  end
  return total, math.max(0, left - units), knows_all and units == 0
end

-- Take what is new of `total` units that (name, incarnation) gave under `id`: gained, have, low; nil for a bygone id.
local function rights_receive(key, book_key, t, name, incarnation, id, total)
  local s = rights_load(key, t)
  if id < s.id - 1 or id > s.id + 1 then
    return nil
  end
  local entries = book_load(book_key, t)
  local gained = math.max(0, total - book_units(entries, 2, name, incarnation, id))
  if gained > 0 then
    if id == s.id then
      s.net = s.net + gained
    elseif id < s.id then
      s.net_before = s.net_before + gained
    else
      s.net_ahead = s.net_ahead + gained
    end
    rights_save(key, t, s)
    book_save(book_key, t, s, entries, 2, name, incarnation, id, total)
  end
  local have = rights_spare(t, s)
  return gained, math.max(0, have), have < rights_low_water(t, s, 1)
end
