-- sliding_log: stores every admitted (time, cost); an entry counts while now < time + window. There are at most 1,000
-- entries, as the limit is at most 1,000 and each entry costs at least 1. A shared log also keeps counts by window: what
-- other regions admitted is known by window only and is weighted as in sliding_window.

-- Returns total, offset of the entries, then (of a shared log) window id and counts in the order of window_value.
local function stored_log(raw)
  local kind = byte(raw)
  if kind >= 52 then
    return unpack('<I2', raw, 2), 4, 0, 0, 0, 0, 0, 0, 0, 0
  elseif kind < 50 then
    return unpack('<I4', raw, 2), 6, 0, 0, 0, 0, 0, 0, 0, 0
  end
  local total, id, taken, before, returned, returned_before, remote, remote_before, remote_next =
    unpack('<I4I6I6I6I6I6I6I6I6', raw, 2)
  return total, 54, id, taken, before, returned, returned_before, remote, remote_before, remote_next
end

local function log_value(dirty, total, entries, id, taken, before, returned, returned_before, remote, remote_before,
  remote_next)
  if id == 0 then
    if total < 65536 then
      return pack('<BI2', 52, total) .. entries
    end
    return pack('<BI4', 48, total) .. entries
  end
  return pack('<BI4I6I6I6I6I6I6I6I6', 50 + dirty, total, id, taken, before, returned, returned_before, remote,
    remote_before, remote_next) .. entries
end

-- Returns the microseconds until `spare` units fit: the earliest instant at which own entries have left and the remote
-- counts weigh little enough, tried entry by entry.
local function log_wait(raw, from, window, spare, id, remote, remote_before)
  local window_ends = (id + 1) * window - now
  local left_in = 0
  local best
  while true do
    if spare >= 0 then
      local wait = window_ends + weight_wait(spare, remote, remote_before, window)
      if wait < left_in then
        wait = left_in
      end
      if not best or wait < best then
        best = wait
      end
      if wait == left_in then
        return best
      end
    end
    if from > #raw then
      return best
    end
    local entered, cost
    entered, cost, from = unpack('<I7I2', raw, from)
    spare = spare + cost
    left_in = entered + window - now
  end
end

local function sliding_log(key, shared, limit, window, _, cost)
  local total, from, at, empties, dirty = 0, 6, now, 0, 0
  local id, seen, taken, before, returned, returned_before, remote, remote_before, remote_next = 0, 0, 0, 0, 0, 0, 0, 0, 0
  local raw = call('GET', key)
  if raw and is_log(raw) then
    if byte(raw) == 52 then
      total, from = unpack('<I2', raw, 2), 4
    else
      dirty = byte(raw) % 2
      total, from, seen, taken, before, returned, returned_before, remote, remote_before, remote_next = stored_log(raw)
    end
    local size = #raw
    if from < size then
      local newest = unpack('<I7', raw, size - 8)
      -- If the clock stepped back, new entries take the newest entry's time, which keeps entries in order.
      if newest > now then
        at = newest
      end
      while from < size do
        local entered, entry_cost = unpack('<I7I2', raw, from)
        if entered + window > at then
          empties = newest + window - now
          break
        end
        total = total - entry_cost
        from = from + 9
      end
    end
  else
    raw = ''
  end
  if shared or seen > 0 then
    local current = floor(at / window)
    id, taken, before, returned, returned_before, remote, remote_before, remote_next =
      rolled(current, seen, taken, before, returned, returned_before, remote, remote_before, remote_next)
  end
  if limit == 0 then
    return NEVER, 0, empties, 0, empties
  end
  local room = limit - total
  if remote + remote_before > 0 then
    room = room - remote - ceil(remote_before * math.min(window, (id + 1) * window - at) / window)
  end
  local left = room > 0 and room or 0
  if cost > room then
    if cost > limit then
      return NEVER, left, empties, left, empties
    elseif remote + remote_before > 0 then
      return -1 - log_wait(raw, from, window, limit - total - cost, id, remote, remote_before), left, empties, left,
        empties
    end
    local entered, entry_cost
    repeat
      entered, entry_cost, from = unpack('<I7I2', raw, from)
      room = room + entry_cost
    until cost <= room
    return -1 - (entered + window - now), left, empties, left, empties
  end
  if cost == 0 then
    return 0, left, empties, left, empties
  end
  local lasts = at + window - now
  if not shared and total + cost < 65536 then
    -- Fast path: the layout of log_value without a second copy, as logs are long.
    return 0, left, empties, room - cost, lasts,
      pack('<BI2', 52, total + cost) .. sub(raw, from) .. pack('<I7I2', at, cost), ttl_ms(lasts)
  end
  local entries = sub(raw, from) .. pack('<I7I2', at, cost)
  if not shared then
    return 0, left, empties, room - cost, lasts, log_value(0, total + cost, entries, 0), ttl_ms(lasts)
  end
  return 0, left, empties, room - cost, lasts,
    log_value(1, total + cost, entries, id, taken + cost, before, returned, returned_before, remote, remote_before,
      remote_next),
    ttl_ms(2 * window + lasts + SLACK_US), due_after(dirty, taken + cost - returned, room - cost, cost)
end
