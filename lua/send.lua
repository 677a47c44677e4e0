-- Scripts of the sender, each a function: data_plane/store/scripts.py says which of them a call runs.

-- Divides leases over a region's agents: the holder of a slice's lease sends the counts of that slice. Other work that
-- one agent does for its region has a lease alone.
--
-- KEYS[i]  a lease: that of slice i - 1, or the only one
-- ARGV[1]  this agent; ARGV[2] how long a lease lasts, in milliseconds; ARGV[3] maximum number of leases to hold
-- Reply    the leases that this agent holds now, by i - 1; surplus ones were released, for agents that join
local function hold_leases()
  local held, max_leases = {}, tonumber(ARGV[3])
  for i, holder in ipairs(call('MGET', spread(KEYS))) do
    if holder == ARGV[1] and #held >= max_leases then
      call('DEL', KEYS[i])
    elseif holder == ARGV[1] then
      call('PEXPIRE', KEYS[i], ARGV[2])
      held[#held + 1] = i - 1
    end
  end
  for i = 1, #KEYS do
    if #held < max_leases and call('SET', KEYS[i], ARGV[1], 'NX', 'PX', ARGV[2]) then
      held[#held + 1] = i - 1
    end
  end
  return held
end

-- Makes waiting marks due now, so that the new holder of these slices sends again what the holder before did not unmark.
--
-- KEYS     slices
-- ARGV[1]  maximum number of marks of each slice
-- Reply    number of marks made due; call again until it is 0
local function make_due()
  local made_due = 0
  for i = 1, #KEYS do
    local members = call('ZRANGEBYSCORE', KEYS[i], '(' .. string.format('%.0f', now), '+inf', 'LIMIT', 0, ARGV[1])
    local scores = {}
    for _, member in ipairs(members) do
      scores[#scores + 1] = now
      scores[#scores + 1] = member
    end
    if #members > 0 then
      call('ZADD', KEYS[i], spread(scores))
    end
    made_due = made_due + #members
  end
  return made_due
end

local LARGEST = 4294967296

local function packed_integer(number)
  if number < 128 then
    return string.char(number)
  elseif number < LARGEST then
    return pack('>BI4', 206, number)
  end
  return pack('>BI8', 207, number)
end

-- Collects this region's own counts that are due, encoded as they travel. Collected counters stay marked, due again at a
-- given instant unless they are unmarked before. A counter that counts meanwhile is marked due anew.
--
-- KEYS[1] and on  slices
-- ARGV[1]  maximum number of counters
-- ARGV[2]  microseconds until collected counters are due again; calls within a second must use different values
-- Reply    { now_us, instant at which they are due again, counters, cells, the encoded cells, then for each slice the
--          instant at which its next counter is due, or -1 }
-- Cells are MessagePack (tidegate/contract/counts.py), one after the other: [key, window id (a bucket's: born_us), taken,
-- returned], of the current window and of the one before it if anything was taken there.
local function collect()
  local max_counters = tonumber(ARGV[1])
  -- As text, which the server reads faster than a number.
  local due_again = string.format('%.0f', now + tonumber(ARGV[2]))
  -- A mark further ahead than this was made before the clock was set back; it counts as due.
  local BEYOND_US = 60000000
  local parts, counters = {}, 0
  local window_of, log_of, bucket_of

  local function add(key, window, taken, returned)
    local head = #key < 256 and pack('>BBB', 148, 196, #key) or pack('>BBI2', 148, 197, #key)
    parts[#parts + 1] = head .. key .. packed_integer(window) .. packed_integer(taken) .. packed_integer(returned)
  end

  -- Counts of a bucket's peers outlive its debt by this, as those of windows do (receive.lua).
  local PEER_SLACK_MS = 60000

  -- What is taken here keeps a peer's own count of a bucket alive there. So it must stay known here as long: if it were
  -- forgotten, the peer's next news would count again all that the peer ever took.
  local function keep_peers(key, lasts_us)
    local ttl = ceil((lasts_us + SLACK_US) / 1000) + PEER_SLACK_MS
    local left = call('PTTL', key .. '!')
    if left >= 0 and left < ttl then
      call('PEXPIRE', key .. '!', ttl)
    end
  end

  -- Returns a counter's window (a bucket's: born_us), and this region's own counts: taken, taken before, returned,
  -- returned before; nothing if it is no counter. A family's functions are made when one of them is first needed.
  local function own_counts(key, raw)
    local window, taken, before, returned, returned_before, _
    if is_window(raw) then
      window_of = window_of or windows()
      return window_of(raw)
    elseif is_log(raw) then
      log_of = log_of or log()
      _, _, window, taken, before, returned, returned_before = log_of(raw)
      return window, taken, before, returned, returned_before
    elseif is_bucket(raw) then
      bucket_of = bucket_of or buckets()
      local at, debt, rate
      _, at, debt, rate, _, _, taken, returned, window = bucket_of(raw)
      keep_peers(key, at - now + ceil(debt / math.max(1, rate)))
      return window, taken, 0, returned, 0
    end
  end

  local function take(slice, members)
    local values = call('MGET', spread(members))
    local marks, without_counts = {}, {}
    for i = 1, #members do
      local key, raw = members[i], values[i]
      local window, taken, before, returned, returned_before
      if raw then
        window, taken, before, returned, returned_before = own_counts(key, raw)
      end
      if window and byte(raw) % 2 == 1 then
        -- A counter is dirty only while it has a mark.
        call('SET', key, string.char(byte(raw) - 1) .. sub(raw, 2), 'KEEPTTL')
      end
      if window and before + taken > 0 then
        if before > 0 then
          add(key, window - 1, before, returned_before)
        end
        if taken > 0 then
          add(key, window, taken, returned)
        end
        marks[#marks + 1] = due_again
        marks[#marks + 1] = key
        counters = counters + 1
      else
        without_counts[#without_counts + 1] = key
      end
    end
    if #marks > 0 then
      call('ZADD', slice, spread(marks))
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
end

-- Removes the marks of one collection once every peer has acknowledged it. A counter that counted since stays marked.
--
-- KEYS[1] and on  slices
-- ARGV[1]  the instant that collect gave these marks
-- ARGV[2]  microseconds until counters that a peer could not place are due again; ARGV[3+] their keys
-- Reply    number of marks removed
local function unmark()
  local at = ARGV[1]
  local unplaced = {}
  for i = 3, #ARGV do
    unplaced[ARGV[i]] = true
  end
  local unmarked = 0
  for i = 1, #KEYS do
    local members = call('ZRANGEBYSCORE', KEYS[i], at, at)
    if #members > 0 then
      local values = call('MGET', spread(members))
      local acknowledged, stay = {}, {}
      for j, key in ipairs(members) do
        -- Versions before 2026-12 set the dirty bit of a counter without making its mark due.
        local is_dirty = values[j] and byte(values[j]) % 2 == 1
        if is_dirty or unplaced[key] then
          stay[#stay + 1] = is_dirty and now or now + tonumber(ARGV[2])
          stay[#stay + 1] = key
        else
          acknowledged[#acknowledged + 1] = key
        end
      end
      if #stay > 0 then
        call('ZADD', KEYS[i], spread(stay))
      end
      if #acknowledged > 0 then
        unmarked = unmarked + call('ZREM', KEYS[i], spread(acknowledged))
      end
    end
  end
  return unmarked
end

-- Marks counters of shared limits as due now, so that they are sent again.
--
-- KEYS[1]  the dirty key, before the number of a slice
-- KEYS[2+] counters
-- Reply    number of counters
local function mark_again()
  for i = 2, #KEYS do
    mark_dirty(KEYS[1], KEYS[i], now, 1)
  end
  return #KEYS - 1
end

-- Removes slots of a Cluster from the list of slots with marks, unless a process marked there meanwhile.
--
-- KEYS[1]  the list: a hash of slots, each with how often it was noted
-- ARGV     pairs: a slot, and that number when the slot was found without marks
-- Reply    number of slots removed
local function unlist_slots()
  local removed = 0
  for i = 1, #ARGV, 2 do
    if call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
      removed = removed + call('HDEL', KEYS[1], ARGV[i])
    end
  end
  return removed
end
