-- Takes what is due of this region's own counts, in the form in which it travels. What was taken waits, until it is settled
-- or until that instant; a counter that counts meanwhile is due again by itself.
--
-- KEYS[1] and on  slices
-- ARGV[1]  at most so many counters
-- ARGV[2]  after how many microseconds they are due again; no two calls within a second say the same
-- Reply    { now_us, that instant, counters, cells, the cells, then for each slice when its next news is due, or -1 }
-- The cells are MessagePack, as tidegate/contract/counts.py has them, one behind the other: [key, window id (a bucket's: born_us),
-- taken, returned], of the current window and, where anything was taken there, the one before it.
local most, again = tonumber(ARGV[1]), now + tonumber(ARGV[2])
-- Marks beyond this were made by a clock that was set back since.
local BEYOND_US = 60000000
local LARGEST = 4294967296
local parts, counters = {}, 0

local function whole(number)
  if number < 128 then
    return string.char(number)
  elseif number < LARGEST then
    return pack('>BI4', 206, number)
  end
  return pack('>BI8', 207, number)
end

local function add(key, window, taken, returned)
  local head = #key < 256 and pack('>BBB', 148, 196, #key) or pack('>BBI2', 148, 197, #key)
  parts[#parts + 1] = head .. key .. whole(window) .. whole(taken) .. whole(returned)
end

-- Adds a counter's own cells; whether it has any.
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
  local taken, gone = {}, {}
  for i, key in ipairs(members) do
    local raw = values[i]
    if raw and add_own(key, raw) then
      if byte(raw) % 2 == 1 then
        call('SET', key, string.char(byte(raw) - 1) .. sub(raw, 2), 'KEEPTTL')
      end
      taken[#taken + 1] = again
      taken[#taken + 1] = key
      counters = counters + 1
    else
      gone[#gone + 1] = key
    end
  end
  if #taken > 0 then
    call('ZADD', slice, spread(taken))
  end
  if #gone > 0 then
    call('ZREM', slice, spread(gone))
  end
end

local reply = {}
for i = 1, #KEYS do
  local left = most - counters
  local members = left > 0 and call('ZRANGEBYSCORE', KEYS[i], '-inf', now, 'LIMIT', 0, left) or {}
  if left > 0 and #members == 0 then
    members = call('ZRANGEBYSCORE', KEYS[i], now + BEYOND_US, '+inf', 'LIMIT', 0, left)
  end
  if #members > 0 then
    take(KEYS[i], members)
  end
  reply[5 + i] = call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')[2] or '-1'
end
reply[1], reply[2], reply[3], reply[4], reply[5] = now, again, counters, #parts, table.concat(parts)
return reply
