-- Collects this region's own counts that are due, encoded as they travel. Collected counters stay marked, due again at a
-- given instant unless they are settled before. A counter that counts meanwhile is marked due anew.
--
-- KEYS[1] and on  slices
-- ARGV[1]  maximum number of counters
-- ARGV[2]  microseconds until collected counters are due again; calls within a second must use different values
-- Reply    { now_us, instant at which they are due again, counters, cells, the encoded cells, then for each slice the
--          instant at which its next counter is due, or -1 }
-- Cells are MessagePack (tidegate/contract/counts.py), one after the other: [key, window id (a bucket's: born_us), taken,
-- returned], of the current window and of the one before it if anything was taken there.
local max_counters, due_again = tonumber(ARGV[1]), now + tonumber(ARGV[2])
-- A mark further ahead than this was made before the clock was set back; it counts as due.
local BEYOND_US = 60000000
local LARGEST = 4294967296
local parts, counters = {}, 0

local function packed_integer(number)
  if number < 128 then
    return string.char(number)
  elseif number < LARGEST then
    return pack('>BI4', 206, number)
  end
  return pack('>BI8', 207, number)
end

local function add(key, window, taken, returned)
  local head = #key < 256 and pack('>BBB', 148, 196, #key) or pack('>BBI2', 148, 197, #key)
  parts[#parts + 1] = head .. key .. packed_integer(window) .. packed_integer(taken) .. packed_integer(returned)
end

-- Adds a counter's own cells. Returns whether there were any.
local function add_own(key, raw)
  local window, taken, before, returned, returned_before, _
  if is_window(raw) then
    window, taken, before, returned, returned_before = stored_window(raw)
  elseif is_log(raw) then
    _, _, window, taken, before, returned, returned_before = stored_log(raw)
  elseif is_bucket(raw) then
    before, returned_before = 0, 0
    _, _, _, _, _, _, taken, returned, window = bucket_state(raw)
  else
    return false
  end
  if before > 0 then
    add(key, window - 1, before, returned_before)
  end
  if taken > 0 then
    add(key, window, taken, returned)
  end
  return before + taken > 0
end

local function take(slice, members)
  local values = call('MGET', spread(members))
  local taken, without_counts = {}, {}
  for i, key in ipairs(members) do
    local raw = values[i]
    if raw and add_own(key, raw) then
      if byte(raw) % 2 == 1 then
        call('SET', key, string.char(byte(raw) - 1) .. sub(raw, 2), 'KEEPTTL')
      end
      taken[#taken + 1] = due_again
      taken[#taken + 1] = key
      counters = counters + 1
    else
      without_counts[#without_counts + 1] = key
    end
  end
  if #taken > 0 then
    call('ZADD', slice, spread(taken))
  end
  if #without_counts > 0 then
    call('ZREM', slice, spread(without_counts))
  end
end

local reply = {}
for i = 1, #KEYS do
  local room = max_counters - counters
  local first = call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')[2]
  if first and room > 0 then
    local members
    if tonumber(first) <= now then
      members = call('ZRANGEBYSCORE', KEYS[i], '-inf', now, 'LIMIT', 0, room)
    else
      members = call('ZRANGEBYSCORE', KEYS[i], now + BEYOND_US, '+inf', 'LIMIT', 0, room)
    end
    if #members > 0 then
      take(KEYS[i], members)
      first = call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')[2]
    end
  end
  reply[5 + i] = first or '-1'
end
reply[1], reply[2], reply[3], reply[4], reply[5] = now, due_again, counters, #parts, table.concat(parts)
return reply
