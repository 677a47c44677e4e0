-- Counts received from a counter's peers, stored beside it at the counter's key + '!', and the receiver's scripts, each a
-- function: data_plane/store/scripts.py says which of them a call runs.
--
-- First byte 0x50, then entries: name length (1), window id or a bucket's born_us (7), taken (6), returned (6), name.
local PEER_SLACK_MS = 60000

local function peer_entries(raw, oldest)
  local entries = {}
  local from = 2
  while raw and byte(raw) == 80 and from <= #raw do
    local length, window, taken, returned
    length, window, taken, returned, from = unpack('<BI7I6I6', raw, from)
    if window >= oldest then
      local name = sub(raw, from, from + length - 1)
      entries[#entries + 1] = { name = name, window = window, taken = taken, returned = returned }
    end
    from = from + length
  end
  return entries
end

local function write_peers(key, entries, ttl)
  local value = 'P'
  for i = 1, #entries do
    local entry = entries[i]
    value = value .. pack('<BI7I6I6', #entry.name, entry.window, entry.taken, entry.returned) .. entry.name
  end
  call('SET', key, value, 'PX', window_ttl(1000 * (ttl + PEER_SLACK_MS)))
end

-- Returns the units of all peers in window `id`, in the one before and in the one after.
local function held_around(entries, id)
  local now_held, before, next = 0, 0, 0
  for i = 1, #entries do
    local entry = entries[i]
    local held = entry.taken - entry.returned
    if entry.window == id then
      now_held = now_held + held
    elseif entry.window < id then
      before = entry.window == id - 1 and before + held or before
    elseif entry.window == id + 1 then
      next = next + held
    end
  end
  return math.max(0, now_held), math.max(0, before), math.max(0, next)
end

-- Of this call: the peer, the number of regions, how many counters are over their limit, and the most units over.
local peer, regions
local over, most_over = 0, 0

-- Notes by how much all regions together are over the limit, if they are.
local function note_overshoot(known, limit)
  if known > limit then
    over, most_over = over + 1, math.max(most_over, known - limit)
  end
end

-- Puts a cell among the peers' entries. Returns by how much that peer's units grew, or nil for a cell known before.
-- A bucket's newer birth replaces its entry. `size` is that of a bucket, nil for windows: of all that a peer ever took of a
-- bucket, no more than a whole one can be owed still.
local function merge_cell(entries, window, taken, returned, size)
  for i = 1, #entries do
    local entry = entries[i]
    if entry.name == peer and (size or entry.window == window) then
      if window < entry.window or window == entry.window and taken + returned <= entry.taken + entry.returned then
        return nil
      end
      local held = window == entry.window and entry.taken - entry.returned or 0
      entry.window, entry.taken, entry.returned = window, taken, returned
      return taken - returned - held
    end
  end
  entries[#entries + 1] = { name = peer, window = window, taken = taken, returned = returned }
  return size and math.min(taken - returned, size) or taken - returned
end

local function merge_windows(key, raw, peers_key, stored_peers, algorithm, a, b, c, cells, from)
  local id, ends, length
  if algorithm == 0 then
    id = fixed_id(b, c, now)
  else
    length = algorithm == 1 and b * c or b
    id = floor(now / length)
  end
  local total, dirty, entries_at, seen = 0, 0, 0, 0
  local taken, before, returned, returned_before = 0, 0, 0, 0
  if raw and algorithm == 2 and is_log(raw) then
    total, entries_at, seen, taken, before, returned, returned_before = stored_log(raw)
    dirty = byte(raw) % 2
  elseif raw and algorithm < 2 and is_window(raw) then
    seen, taken, before, returned, returned_before = stored_window(raw)
    dirty = byte(raw) % 2
  end
  id, taken, before, returned, returned_before = rolled(id, seen, taken, before, returned, returned_before, 0, 0, 0)

  local entries = peer_entries(stored_peers, id - 1)
  local changed, ahead = false, false
  while from <= #cells do
    local window, cell_taken, cell_returned
    window, cell_taken, cell_returned, from = unpack('<i8i8i8', cells, from)
    if window > id + 1 then
      ahead = true
    elseif window >= id - 1 and merge_cell(entries, window, cell_taken, cell_returned) then
      changed = true
    end
  end
  if changed then
    if algorithm == 0 then
      ends = fixed_start(b, c, id + 2) - now
    else
      ends = (id + 2) * length - now
    end
    local remote, remote_before, remote_next = held_around(entries, id)
    note_overshoot(taken - returned + remote, a)
    local value
    if algorithm == 2 then
      value = log_value(dirty, total, entries_at > 0 and sub(raw, entries_at) or '', id, taken, before, returned,
        returned_before, remote, remote_before, remote_next)
      ends = ends + length
    else
      if algorithm == 1 and remote_next > 0 then
        ends = ends + length
      end
      value = window_value(dirty, id, taken, before, returned, returned_before, remote, remote_before, remote_next)
    end
    call('SET', key, value, 'PX', window_ttl(ends + SLACK_US))
    write_peers(peers_key, entries, ttl_ms(ends + SLACK_US))
  end
  return ahead and '2' or changed and '1' or '0'
end

local function merge_bucket(key, raw, peers_key, stored_peers, queue, rate, unit, size, cells, from)
  local entries = peer_entries(stored_peers, 0)
  local growth
  while from <= #cells do
    local born, taken, returned
    born, taken, returned, from = unpack('<i8i8i8', cells, from)
    local grown = merge_cell(entries, born, taken, returned, size)
    if grown then
      growth = (growth or 0) + grown
    end
  end
  if not growth or rate == 0 then
    return '0'
  end
  -- Of what a peer took while it was cut off, it owes one bucket at most; what came before it knew of the cut is added.
  growth = math.min(growth, size + floor(rate * SLACK_US / unit))
  local dirty, at, debt, taken, returned, born = 0, now, 0, 0, 0, now
  if raw and is_bucket(raw) then
    local old_born
    dirty, at, debt, taken, returned, old_born = bucket_at(raw, rate, unit, size, queue)
    born = old_born > 0 and old_born or now
  end
  debt = math.max(0, math.min(debt + growth * unit, math.max(debt, regions * size * unit), EXACT))
  note_overshoot(ceil(debt / unit), size)
  local fills = at - now + ceil(debt / rate)
  call('SET', key, bucket_value(dirty, at, debt, rate, unit, size, taken, returned, born), 'PX', ttl_ms(fills + SLACK_US))
  -- Keep the peer's counts until its bucket can be full again.
  write_peers(peers_key, entries, ttl_ms(math.min(regions * size * unit, EXACT) / rate + SLACK_US))
  return '1'
end

-- Merges one peer's counts. Of the known and the received figures of a cell the larger are the newer, as both only grow:
-- repeated, reordered and lost messages do no harm. The peers' sum is then written into the counter, where decisions
-- see it.
--
-- KEYS[1]    the dirty key: it only routes the call to its server
-- KEYS[2+]   counters, each once; the counts of its peers are at the counter's key + '!'
-- ARGV[1]    the peer: region and incarnation of its store, at most 255 bytes
-- ARGV[2]    number of regions: remote growth drives a bucket down to -(regions - 1) x size at most
-- ARGV[2+i]  for counter i: its rule in the form of decide.lua, then cells of three signed 8-byte integers: window id (a
--            bucket's: born_us), taken, returned
-- Reply      a byte for each counter: '0' known before, '1' merged, '2' a window is too far ahead of this clock, so the
--            counter must be sent again (its other cells were merged); then two signed 8-byte integers: how many
--            counters are over their limit, and the most units over
--
-- Windows older than the previous one are dropped. A window that is one ahead, sent by a region whose clock is ahead,
-- waits in the counter.
local function merge()
  peer, regions = ARGV[1], tonumber(ARGV[2])
  local counters, peers_keys = {}, {}
  for i = 1, #KEYS - 1 do
    counters[i], peers_keys[i] = KEYS[1 + i], KEYS[1 + i] .. '!'
  end
  local stored, stored_peers = call('MGET', spread(counters)), call('MGET', spread(peers_keys))
  local reply = {}
  for i = 1, #counters do
    local key, raw = counters[i], stored[i]
    local cells = ARGV[2 + i]
    local rule, a, b, c, from = unpack('<Bddd', cells)
    local algorithm = rule % 8
    if rule >= 64 then
      local size
      size, from = unpack('<H', cells, from)
      -- Reserves are a share of what was left when a peer became unreachable: store them before counts change.
      unreachable_reserves(algorithm, key, a, b, c, sub(cells, from, from + size - 1))
      from = from + size
    end
    if algorithm < 3 then
      reply[i] = merge_windows(key, raw, peers_keys[i], stored_peers[i], algorithm, a, b, c, cells, from)
    else
      reply[i] = merge_bucket(key, raw, peers_keys[i], stored_peers[i], algorithm == 4, a, b, c, cells, from)
    end
  end
  return table.concat(reply) .. pack('<i8i8', over, most_over)
end

-- Ends a store's epoch. After a restart or restore a store may lack counts that its peers know. So its own counts move to
-- the entry of the ended epoch among the peers' counts, where they are merged with what peers hand back.
--
-- KEYS[1]  the epoch's name; KEYS[2] the incarnation in the marker that it belongs to; KEYS[3] the hash of note_received
-- KEYS[4+] pairs: a shared counter, and the key of its peers' counts
-- ARGV[1]  this region; ARGV[2] name of the epoch to end; ARGV[3] number of regions
-- ARGV[4]  '', or the new epoch's name once all counters are done; ARGV[5] the incarnation that it belongs to
-- Reply    number of counters changed; false if another agent has begun the new epoch already
local function end_epoch()
  if call('GET', KEYS[1]) ~= ARGV[2] then
    return false
  end
  local ended = ARGV[1] .. '/' .. ARGV[2]
  regions = tonumber(ARGV[3])

  -- Adds own counts to the ended epoch's entry. An entry exists only if an agent died half way: then both parts add up.
  local function add(entries, window, taken, returned, is_bucket_rule)
    for _, entry in ipairs(entries) do
      if entry.name == ended and entry.window == window then
        entry.taken, entry.returned = entry.taken + taken, entry.returned + returned
        return
      elseif entry.name == ended and is_bucket_rule then
        entry.window, entry.taken, entry.returned = window, taken, returned
        return
      end
    end
    entries[#entries + 1] = { name = ended, window = window, taken = taken, returned = returned }
  end

  local function end_counter(key, peers_key)
    local raw = call('GET', key)
    if not raw then
      return 0
    end
    local dirty = byte(raw) % 2
    local ttl = math.max(1, call('PTTL', key))
    local value, entries
    if is_bucket(raw) then
      local _, at, debt, rate, unit, size, taken, returned, born = bucket_state(raw)
      if taken == 0 or rate == 0 then
        return 0
      end
      entries = peer_entries(call('GET', peers_key), 0)
      add(entries, born, taken, returned, true)
      value = bucket_value(dirty, at, debt, rate, unit, size, 0, 0, now)
      ttl = math.max(ttl, ttl_ms(math.min(regions * size * unit, EXACT) / rate + SLACK_US))
    elseif is_window(raw) or is_log(raw) then
      local id, taken, before, returned, returned_before
      if is_window(raw) then
        id, taken, before, returned, returned_before = stored_window(raw)
      else
        local _
        _, _, id, taken, before, returned, returned_before = stored_log(raw)
      end
      if taken + before == 0 then
        return 0
      end
      entries = peer_entries(call('GET', peers_key), id - 1)
      if taken > 0 then
        add(entries, id, taken, returned, false)
      end
      if before > 0 then
        add(entries, id - 1, before, returned_before, false)
      end
      local remote, remote_before, remote_next = held_around(entries, id)
      if is_window(raw) then
        value = window_value(dirty, id, 0, 0, 0, 0, remote, remote_before, remote_next)
      else
        value = log_value(dirty, 0, '', id, 0, 0, 0, 0, remote, remote_before, remote_next)
      end
    else
      return 0
    end
    call('SET', key, value, 'KEEPTTL')
    write_peers(peers_key, entries, math.max(ttl, call('PTTL', peers_key) - PEER_SLACK_MS))
    return 1
  end

  local changed = 0
  for i = 4, #KEYS, 2 do
    changed = changed + end_counter(KEYS[i], KEYS[i + 1])
  end
  -- In the new epoch no peer counts as received until it has sent everything.
  call('DEL', KEYS[3])
  if ARGV[4] ~= '' then
    call('SET', KEYS[1], ARGV[4])
    call('SET', KEYS[2], ARGV[5])
  end
  return changed
end

-- Records when counts of each peer were received, slice by slice, and tells which peers are unreachable. All processes of
-- the region share this record.
--
-- A message sent no later than the last one about a slice is a repeat. Its age is unknown, so it changes nothing.
--
-- KEYS[1]  a hash: 'peer/slice' is the instant up to which its counts are complete (microseconds), 'peer@slice' is when
--          its last message was sent (the peer's clock), '~peer' is since when the peer is unreachable. (Agents also
--          keep '=peer/slice' there: the epoch of the peer's store that was sent everything of the slice.)
-- ARGV[1]  number of slices; ARGV[2] microseconds after which a peer counts as unreachable
-- ARGV[3]  the peer whose message was received, or ''; ARGV[4] when it sent the message (its clock, microseconds)
-- ARGV[5]  number of slices in the message; then number and age (microseconds) of each; then the names of all peers
-- Reply    number of slices that were repeats; then for each peer: its name, the instant up to which all its slices are
--          complete (0: never), since when it is unreachable (0: it is reachable)
local function note_received()
  local slices, unreachable_after, peer = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
  local sent, count = tonumber(ARGV[4]), tonumber(ARGV[5])
  local repeated = 0
  for i = 0, count - 1 do
    local slice = ARGV[6 + 2 * i]
    local field, sent_field = peer .. '/' .. slice, peer .. '@' .. slice
    local complete_until = now - tonumber(ARGV[7 + 2 * i])
    if sent <= tonumber(call('HGET', KEYS[1], sent_field) or 0) then
      repeated = repeated + 1
    else
      call('HSET', KEYS[1], sent_field, string.format('%.0f', sent))
      if complete_until > tonumber(call('HGET', KEYS[1], field) or 0) then
        call('HSET', KEYS[1], field, string.format('%.0f', complete_until))
      end
    end
  end
  local reply = { repeated }
  for i = 6 + 2 * count, #ARGV do
    local name = ARGV[i]
    local unreachable = '~' .. name
    local fields = {}
    for slice = 0, slices - 1 do
      fields[slice + 1] = name .. '/' .. slice
    end
    fields[slices + 1] = unreachable
    local values = call('HMGET', KEYS[1], spread(fields))
    local oldest = tonumber(values[1] or 0)
    for slice = 2, slices do
      oldest = math.min(oldest, tonumber(values[slice] or 0))
    end
    local known_since = values[slices + 1]
    local since = 0
    if now - oldest > unreachable_after then
      since = tonumber(known_since or now)
      if not known_since then
        call('HSET', KEYS[1], unreachable, string.format('%.0f', now))
      end
    elseif known_since then
      call('HDEL', KEYS[1], unreachable)
    end
    reply[#reply + 1] = name
    reply[#reply + 1] = oldest
    reply[#reply + 1] = since
  end
  return reply
end
