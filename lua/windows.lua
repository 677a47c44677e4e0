-- fixed_window and sliding_window: counts of the current and the previous window.
-- Window ids never go back: a stored newer id wins over a clock that stepped back.

local NARROW = 4294967296

-- TTLs as text by microseconds: all counters of a rule share one, and the server reads text faster than numbers.
local ttl_texts = {}

local function window_ttl(us)
  local text = ttl_texts[us]
  if not text then
    text = string.format('%d', ceil(us / 1000))
    ttl_texts[us] = text
  end
  return text
end

-- Packs a window counter, in the short layout while it has no remote and no returned counts.
local function window_value(dirty, id, taken, taken_before, returned, returned_before, remote, remote_before, remote_next)
  if returned + returned_before + remote + remote_before + remote_next == 0 then
    if id < NARROW and taken < NARROW and taken_before < NARROW then
      return pack('<BI4I4I4', 16 + dirty, id, taken, taken_before)
    end
    return pack('<BI6I6I6', 18 + dirty, id, taken, taken_before)
  end
  if id < NARROW and taken < NARROW and taken_before < NARROW and remote < NARROW and remote_before < NARROW
    and remote_next < NARROW then
    return pack('<BI4I4I4I4I4I4I4I4', 20 + dirty, id, taken, taken_before, returned, returned_before,
      remote, remote_before, remote_next)
  end
  return pack('<BI6I6I6I6I6I6I6I6', 22 + dirty, id, taken, taken_before, returned, returned_before,
    remote, remote_before, remote_next)
end

-- Rolls counts stored under window `stored` forward to window `id`. Returns the newer of both ids, then the counts in
-- the order of window_value.
local function rolled(id, stored, taken, before, returned, returned_before, remote, remote_before, remote_next)
  if stored >= id then
    return stored, taken, before, returned, returned_before, remote, remote_before, remote_next
  elseif stored == id - 1 then
    return id, 0, taken, 0, returned, remote_next, remote, 0
  elseif stored == id - 2 then
    return id, 0, 0, 0, 0, 0, remote_next, 0
  end
  return id, 0, 0, 0, 0, 0, 0, 0
end

-- Returns the counts as stored: id, then in the order of window_value.
local function stored_window(raw)
  local kind = byte(raw)
  local id, taken, before
  if kind < 18 then
    id, taken, before = unpack('<I4I4I4', raw, 2)
  elseif kind < 20 then
    id, taken, before = unpack('<I6I6I6', raw, 2)
  elseif kind < 22 then
    return unpack('<I4I4I4I4I4I4I4I4', raw, 2)
  else
    return unpack('<I6I6I6I6I6I6I6I6', raw, 2)
  end
  return id, taken, before, 0, 0, 0, 0, 0
end

-- Returns a counter rolled forward to window `id`: dirty, then what `rolled` returns.
local function window_at(id, raw)
  if is_window(raw) then
    return byte(raw) % 2, rolled(id, stored_window(raw))
  end
  return 0, id, 0, 0, 0, 0, 0, 0, 0
end

-- Months from 1970-01 to an instant, and below the instant at which a month begins (proleptic Gregorian, UTC; years are
-- counted from March so that the leap day comes last).
local function month_of(us)
  local days = floor(us / 86400000000) + 719468
  local era = floor(days / 146097)
  local day_of_era = days - era * 146097
  local leap_days = floor(day_of_era / 1460) - floor(day_of_era / 36524) + floor(day_of_era / 146096)
  local year = floor((day_of_era - leap_days) / 365)
  local day_of_year = day_of_era - (365 * year + floor(year / 4) - floor(year / 100))
  return (era * 400 + year) * 12 + floor((5 * day_of_year + 2) / 153) + 2 - 23640
end

local function month_start(month)
  local march_months = month + 23640 - 2
  local year = floor(march_months / 12)
  local era = floor(year / 400)
  local year_of_era = year - era * 400
  local day_of_year = floor((153 * (march_months % 12) + 2) / 5)
  local day_of_era = year_of_era * 365 + floor(year_of_era / 4) - floor(year_of_era / 100) + day_of_year
  return (era * 146097 + day_of_era - 719468) * 86400000000
end

-- Returns a fixed window's id. `window` is microseconds, or 0 for calendar months; window 0 begins at `anchor`.
local function fixed_id(window, anchor, at)
  if window == 0 then
    return month_of(at - anchor)
  end
  return floor((at - anchor) / window)
end

local function fixed_start(window, anchor, id)
  if window == 0 then
    return month_start(id) + anchor
  end
  return id * window + anchor
end

-- Returns the ticks from the current window's end (negative: before it) until counts of this and the previous window
-- weigh at most `spare` units together. A count of n weighs n x k / ticks while k ticks of its weight are left.
local function weight_wait(spare, count, count_before, ticks)
  if spare >= count then
    if count_before == 0 then
      return -ticks
    end
    local before_end = floor((spare - count) * ticks / count_before)
    if before_end > 0 then
      return -before_end
    end
  end
  if count == 0 then
    return 0
  end
  return ticks - math.min(ticks, floor(spare * ticks / count))
end

-- Allows while taken + cost <= limit. `window` and `anchor` are as in fixed_id.
local function fixed_window(key, shared, limit, window, anchor, cost)
  local id = fixed_id(window, anchor, now)
  local dirty, taken, before, returned, returned_before, remote, remote_before, remote_next = 0, 0, 0, 0, 0, 0, 0, 0
  local raw = call('GET', key)
  if raw then
    local kind = byte(raw)
    if kind == 16 or kind == 17 then
      -- Fast path: the commonest layout.
      local stored
      dirty = kind - 16
      stored, taken, before = unpack('<I4I4I4', raw, 2)
      if stored > id then
        id = stored
      elseif stored < id then
        taken, before = 0, stored == id - 1 and taken or 0
      end
    else
      dirty, id, taken, before, returned, returned_before, remote, remote_before, remote_next = window_at(id, raw)
    end
  end
  local ends = fixed_start(window, anchor, id + 1) - now
  if limit == 0 then
    return NEVER, 0, ends, 0, ends
  end
  local room = limit - (taken - returned + remote)
  local left = room > 0 and room or 0
  if cost > room then
    return cost > limit and NEVER or -1 - ends, left, ends, left, ends
  end
  if cost == 0 then
    return 0, left, ends, left, ends
  end
  if not shared then
    return 0, left, ends, room - cost, ends, window_value(dirty, id, taken + cost, 0, returned, 0, remote, 0, 0),
      window_ttl(ends)
  end
  -- Counts that peers sent for the next window must outlive that window.
  local lasts = remote_next > 0 and fixed_start(window, anchor, id + 2) - now or ends
  return 0, left, ends, room - cost, ends,
    window_value(1, id, taken + cost, before, returned, returned_before, remote, remote_before, remote_next),
    window_ttl(lasts + SLACK_US), due_after(dirty, taken + cost - returned, room - cost, cost)
end

-- Allows while before x (ticks - elapsed) / ticks + taken + cost <= limit. A window has `ticks` steps of `tick`
-- microseconds. Counts far beyond the limit may carry a product past 2^53 and make it inexact; it is then far above
-- limit x ticks < 2^50, so the comparison is still right.
local function sliding_window(key, shared, limit, ticks, tick, cost)
  local elapsed = floor(now / tick)
  local id = floor(elapsed / ticks)
  elapsed = elapsed - id * ticks
  local dirty, taken, before, returned, returned_before, remote, remote_before, remote_next = 0, 0, 0, 0, 0, 0, 0, 0
  local raw = call('GET', key)
  if raw then
    local kind = byte(raw)
    if kind == 16 or kind == 17 then
      -- Fast path: the commonest layout.
      local stored
      dirty = kind - 16
      stored, taken, before = unpack('<I4I4I4', raw, 2)
      if stored > id then
        id = stored
        elapsed = 0
      elseif stored < id then
        taken, before = 0, stored == id - 1 and taken or 0
      end
    else
      local seen = id
      dirty, id, taken, before, returned, returned_before, remote, remote_before, remote_next = window_at(id, raw)
      if id > seen then
        elapsed = 0
      end
    end
  end
  local ends = (id + 1) * ticks * tick - now
  if limit == 0 then
    return NEVER, 0, ends, 0, ends
  end
  local used, used_before = taken - returned + remote, before - returned_before + remote_before
  local room = limit - used
  if used_before > 0 then
    room = room - ceil(used_before * (ticks - elapsed) / ticks)
  end
  local left = room > 0 and room or 0
  if cost > room then
    if cost > limit then
      return NEVER, left, ends, left, ends
    end
    local wait = ends + weight_wait(limit - cost, used, used_before, ticks) * tick
    return -1 - wait, left, ends, left, ends
  end
  if cost == 0 then
    return 0, left, ends, left, ends
  end
  if not shared then
    return 0, left, ends, room - cost, ends,
      window_value(dirty, id, taken + cost, before, returned, returned_before, remote, remote_before, 0),
      window_ttl(ends + ticks * tick)
  end
  return 0, left, ends, room - cost, ends,
    window_value(1, id, taken + cost, before, returned, returned_before, remote, remote_before, remote_next),
    window_ttl(ends + (remote_next > 0 and 2 or 1) * ticks * tick + SLACK_US),
    due_after(dirty, taken + cost - returned, room - cost, cost)
end
