-- shared windows and logs while peers are unreachable: an unreachable peer keeps its share of what was left when it
-- became unreachable. Rounding reserves too much rather than too little. Needs the rules in front.
--
-- The peers travel behind the rule (see decide.lua): the sum of all shares (8, double), then for each unreachable peer:
-- length of its name (1), name, share, and since when it is unreachable, in microseconds (8 each, doubles).
--
-- Reserves are stored at the counter's key + '?': first byte 0x53, then entries: length of the name (1), name, since when
-- (7), window id (7), units (6), limit (6). An entry is made when the counter is first used in a window with an
-- unreachable peer, from what is left then, and holds for that window while the peer stays unreachable. Where the limit
-- has changed since, the peer's share of the difference is added. Written until 2026-12: 0x52, without the limit.
local RESERVES, WITHOUT_LIMIT = 83, 82

local function reserve_entries(raw, oldest, limit)
  local entries, from = {}, 2
  local kind = raw and byte(raw)
  while (kind == RESERVES or kind == WITHOUT_LIMIT) and from <= #raw do
    local length, name, since, id, units
    local of_limit = limit
    length, from = unpack('<B', raw, from)
    name, from = sub(raw, from, from + length - 1), from + length
    since, id, units, from = unpack('<I7I7I6', raw, from)
    if kind == RESERVES then
      of_limit, from = unpack('<I6', raw, from)
    end
    if id >= oldest then
      entries[#entries + 1] = { name, since, id, units, of_limit }
    end
  end
  return entries
end

local function reserve_of(entries, name, since, id)
  for _, e in ipairs(entries) do
    if e[1] == name and e[2] == since and e[3] == id then
      return e
    end
  end
end

-- Returns the units reserved for unreachable peers in window `id` and in the one before. `left` and `left_before` are
-- the units known to be untaken there; reserves that do not exist yet are computed from them and stored.
local function reserved_in_windows(key, packed, id, limit, left, left_before, ttl)
  local raw = call('GET', key .. '?')
  local entries = reserve_entries(raw, id - 1, limit)
  local added = false
  local total, total_before = 0, 0
  local all_shares, from = unpack('<d', packed)
  while from <= #packed do
    local length, name, share, since
    length, from = unpack('<B', packed, from)
    name, from = sub(packed, from, from + length - 1), from + length
    share, since, from = unpack('<dd', packed, from)
    for step = 0, 1 do
      local entry = reserve_of(entries, name, since, id - step)
      if not entry then
        local units = ceil(math.max(0, step == 0 and left or left_before) * share / all_shares)
        entry = { name, since, id - step, units, limit }
        entries[#entries + 1] = entry
        added = true
      end
      local units = math.max(0, entry[4] + ceil((limit - entry[5]) * share / all_shares))
      if step == 0 then
        total = total + units
      else
        total_before = total_before + units
      end
    end
  end
  if added then
    local parts = { string.char(RESERVES) }
    for _, e in ipairs(entries) do
      parts[#parts + 1] = pack('<B', #e[1]) .. e[1] .. pack('<I7I7I6I6', e[2], e[3], e[4], e[5])
    end
    call('SET', key .. '?', table.concat(parts), 'PX', ttl)
  end
  return total, total_before
end

-- Returns a counter's reserves of this window and of the one before, the weight of the window before (two figures, whose
-- quotient is from 0 to 1), and the units taken in that window.
local function unreachable_reserves(algorithm, key, limit, b, c, packed)
  local length = algorithm == 1 and b * c or b
  local anchor = algorithm == 0 and c or 0
  local id = fixed_id(length, anchor, now)
  local raw = call('GET', key)
  local seen, taken, before, returned, returned_before, remote, remote_before, remote_next = 0, 0, 0, 0, 0, 0, 0, 0
  if raw and algorithm == 2 and is_log(raw) then
    local _
    _, _, seen, taken, before, returned, returned_before, remote, remote_before, remote_next = stored_log(raw)
  elseif raw and algorithm < 2 and is_window(raw) then
    seen, taken, before, returned, returned_before, remote, remote_before, remote_next = stored_window(raw)
  end
  id, taken, before, returned, returned_before, remote, remote_before = rolled(id, seen, taken, before, returned,
    returned_before, remote, remote_before, remote_next)
  local ttl = math.max(1, ttl_ms(fixed_start(length, anchor, id + 2) - now + SLACK_US))
  local kept, kept_before = reserved_in_windows(key, packed, id, limit, limit - (taken - returned + remote),
    limit - (before - returned_before + remote_before), ttl)
  local ends = fixed_start(length, anchor, id + 1) - now
  return kept, kept_before, math.max(0, math.min(ends, length)), length, before - returned_before + remote_before
end

-- Decides a shared window or log while peers are unreachable. Reserves count as taken; those of the window before by
-- its weight. A sliding window respects both bounds: this window's full reserve, and both reserves by their weights.
local function decide_unreachable(algorithm, key, limit, b, c, cost, packed)
  local kept, kept_before, weighs, length, before = unreachable_reserves(algorithm, key, limit, b, c, packed)
  local within = limit - kept
  if algorithm == 1 then
    within = math.min(limit - ceil((weighs * kept_before + (length - weighs) * kept) / length),
      within + floor(weighs * before / length))
  elseif algorithm == 2 then
    within = within - ceil(kept_before * weighs / length)
  end
  local rule = algorithm == 0 and fixed_window or algorithm == 1 and sliding_window or sliding_log
  local wait, left, reset, left_after, reset_after, value, ttl, due, was =
    rule(key, true, math.max(0, within), b, c, cost)
  if wait == NEVER and cost <= limit then
    local anchor = algorithm == 0 and c or 0
    local window = algorithm == 1 and b * c or b
    wait = -1 - math.max(1, fixed_start(window, anchor, fixed_id(window, anchor, now) + 1) - now)
  end
  if cost == 0 and limit > 0 and within <= 0 then
    wait = 0
  end
  return wait, left, reset, left_after, reset_after, value, ttl, due, was
end
