-- Ends a store's epoch. After a restart or restore a store may lack counts that its peers know. So its own counts move to
-- the entry of the ended epoch among the peers' counts, where they are merged with what peers hand back.
--
-- KEYS[1]  the epoch's name; KEYS[2] the incarnation in the marker that it belongs to; KEYS[3] the hash of received.lua
-- KEYS[4+] pairs: a shared counter, and the key of its peers' counts
-- ARGV[1]  this region; ARGV[2] name of the epoch to end; ARGV[3] number of regions
-- ARGV[4]  '', or the new epoch's name once all counters are done; ARGV[5] the incarnation that it belongs to
-- Reply    number of counters changed; false if another agent has begun the new epoch already
if call('GET', KEYS[1]) ~= ARGV[2] then
  return false
end
local ended = ARGV[1] .. '/' .. ARGV[2]
local regions = tonumber(ARGV[3])

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
