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
-- waits in the counter. Counts of peers are stored by peer_counts.lua.
local peer = ARGV[1]
local regions = tonumber(ARGV[2])
local over, most_over = 0, 0

-- Notes by how much all regions together are over the limit, if they are.
local function note_overshoot(known, limit)
  if known > limit then
    over, most_over = over + 1, math.max(most_over, known - limit)
  end
end

-- Puts a cell among the peers' entries. Returns by how much that peer's units grew, or nil for a cell known before.
-- A bucket's newer birth replaces its entry.
local function merge_cell(entries, window, taken, returned, is_bucket_rule)
  for i = 1, #entries do
    local entry = entries[i]
    if entry.name == peer and (is_bucket_rule or entry.window == window) then
      if window < entry.window or window == entry.window and taken + returned <= entry.taken + entry.returned then
        return nil
      end
      local held = window == entry.window and entry.taken - entry.returned or 0
      entry.window, entry.taken, entry.returned = window, taken, returned
      return taken - returned - held
    end
  end
  entries[#entries + 1] = { name = peer, window = window, taken = taken, returned = returned }
  return taken - returned
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
    elseif window >= id - 1 and merge_cell(entries, window, cell_taken, cell_returned, false) then
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
    local grown = merge_cell(entries, born, taken, returned, true)
    if grown then
      growth = (growth or 0) + grown
    end
  end
  if not growth or rate == 0 then
    return '0'
  end
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
