-- A store that was put back to an older state, or began again with what it had saved, is a new life, as peers know more of
-- the old one than it does: what its counters hold as their own becomes what the old life said, among what peers said.
-- There it meets what peers hand back, and the newer wins.
--
-- KEYS[1]  the name of the life; KEYS[2] the marker's incarnation that it belongs to; KEYS[3] who was heard
-- KEYS[4]  and so on in pairs: a shared counter, and the key of what its peers said
-- ARGV[1]  this region; ARGV[2] the name of the life that is over; ARGV[3] the number of regions
-- ARGV[4]  '', or the new name, once all counters are done; ARGV[5] the incarnation that it belongs to
-- Reply    how many counters changed; nothing where another node has begun the new life already
if call('GET', KEYS[1]) ~= ARGV[2] then
  return false
end
local old = ARGV[1] .. '/' .. ARGV[2]
local regions = tonumber(ARGV[3])

-- Twice for one counter only where a node died half way: then both parts are of the old life.
local function add(entries, window, taken, returned, is_bucket_rule)
  for _, entry in ipairs(entries) do
    if entry.name == old and entry.window == window then
      entry.taken, entry.returned = entry.taken + taken, entry.returned + returned
      return
    elseif entry.name == old and is_bucket_rule then
      entry.window, entry.taken, entry.returned = window, taken, returned
      return
    end
  end
  entries[#entries + 1] = { name = old, window = window, taken = taken, returned = returned }
end

local function retire(key, peers_key)
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
  changed = changed + retire(KEYS[i], KEYS[i + 1])
end
-- Until peers told everything to the new life nothing of them counts as heard.
call('DEL', KEYS[3])
if ARGV[4] ~= '' then
  call('SET', KEYS[1], ARGV[4])
  call('SET', KEYS[2], ARGV[5])
end
return changed
