-- Which counters peers are told of, beside those of windows, logs and buckets: strict ones with an overdraft (see
-- rights.lua).
local function is_overdraft(raw)
  local kind = byte(raw) or 0
  return kind >= 68 and kind < 70
end

-- Id, taken, taken before; what others took, as last heard.
local function stored_overdraft(raw)
  local _, id, taken, before, remote
  _, id, taken, _, before = unpack('<I4I6I6i6I6', raw, 2)
  _, _, _, remote = unpack('<I6I6I6I6', raw, 59)
  return id, taken, before, remote
end
