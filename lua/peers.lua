-- What the peers of a counter said, kept beside it (the counter's key + '!').
--
-- First byte 0x50, then entries: name length (1), window id or a bucket's born_us (7), taken (6),
-- returned (6), name.
local PEER_SLACK_MS = 60000

local function peer_entries(raw, oldest)
  local entries = {}
  local from = 2
  while raw and byte(raw) == 80 and from <= #raw do
    local length, window, taken, returned, name
    length, window, taken, returned, from = unpack('<BI7I6I6', raw, from)
    name, from = sub(raw, from, from + length - 1), from + length
    if window >= oldest then
      entries[#entries + 1] = { name = name, window = window, taken = taken, returned = returned }
    end
  end
  return entries
end

local function write_peers(key, entries, ttl)
  local parts = { string.char(80) }
  for _, entry in ipairs(entries) do
    parts[#parts + 1] = pack('<BI7I6I6', #entry.name, entry.window, entry.taken, entry.returned) .. entry.name
  end
  call('SET', key, table.concat(parts), 'PX', ttl + PEER_SLACK_MS)
end

local function held_in(entries, window)
  local total = 0
  for _, entry in ipairs(entries) do
    if entry.window == window then
      total = total + entry.taken - entry.returned
    end
  end
  return total > 0 and total or 0
end
