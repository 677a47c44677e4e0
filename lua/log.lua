-- sliding_log: every admitted (time, cost); an entry counts while now < time + window. At most 1,000 entries, because
-- the limit is at most 1,000 and each entry costs at least 1.

local function sliding_log(key, _, limit, window, _, cost)
  local total, from, at, empties = 0, 6, now, 0
  local raw = call('GET', key)
  if raw and byte(raw) == 48 then
    local newest = unpack('<I7', raw, #raw - 8)
    total = unpack('<I4', raw, 2)
    -- Entries stay in order even when the clock steps back.
    if newest > now then
      at = newest
    end
    local size = #raw
    while from < size do
      local entered, entry_cost = unpack('<I7I2', raw, from)
      if entered + window > at then
        empties = newest + window - now
        break
      end
      total = total - entry_cost
      from = from + 9
    end
  else
    raw = ''
  end
  if limit == 0 then
    return NEVER, 0, empties, 0, empties
  end
  local room = limit - total
  local left = room > 0 and room or 0
  if cost > room then
    if cost > limit then
      return NEVER, left, empties, left, empties
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
  return 0, left, empties, room - cost, lasts,
    pack('<BI4', 48, total + cost) .. sub(raw, from) .. pack('<I7I2', at, cost), ttl_ms(lasts)
end
