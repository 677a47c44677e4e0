-- Counts received from a counter's peers, stored beside it at the counter's key + '!'.
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
