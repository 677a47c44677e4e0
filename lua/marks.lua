-- Counters with news for other regions wait in one of SLICES sorted sets, by when they first had some: a slice is what
-- one node tells at a time. `dirty_key` is the script's KEYS[1]; the slice's own key is that with its number behind.
-- On a Cluster each slot has one sorted set, the dirty key with the slot's tag at its end; there slices are made of slots.
local SLICES = 8

local function mark_dirty(dirty_key, key)
  if byte(dirty_key, -1) == 125 then
    call('ZADD', dirty_key, 'NX', now, key)
    return
  end
  local sum = 0
  for i = 1, #key do
    sum = sum + byte(key, i)
  end
  call('ZADD', dirty_key .. sum % SLICES, 'NX', now, key)
end
