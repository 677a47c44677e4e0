-- Marks: counters whose counts other regions lack wait in one of SLICES sorted sets, by when they are due. `dirty_key` is
-- the script's KEYS[1]; a slice's key is the dirty key followed by the slice's number. On a Cluster each slot has one
-- sorted set, the dirty key with the slot's tag at its end, and slices are made of slots.
--
-- Bit 0 of a counter ("dirty") is set when it counts and cleared when it is collected. While it is set, the mark tells
-- when the counter is due.
local SLICES = 8
-- Small changes are due after this time, so that one message carries many. With a tick it makes one second.
local LAZY_US = 800000

-- Returns when a counter is due after `cost` more units were taken, and whether it was marked before; nothing if its
-- mark stays. `own` is what this region took, `room` what is left of the limit in all regions, both after this cost.
--
-- A counter is due at once when `own` passes a multiple of a step: the power of two between an eighth and a sixteenth of
-- room. So at most one step is unsent at any time, and the last count that was sent need not be stored.
local function due_after(dirty, own, room, cost)
  local _, exponent = math.frexp(room)
  if own % (exponent > 4 and math.ldexp(1, exponent - 4) or 1) < cost then
    return now, dirty
  elseif dirty == 0 then
    return now + LAZY_US, 0
  end
end

-- Marks a counter as due at an instant; if it was marked before, at the earlier of both.
local function mark_dirty(dirty_key, key, due, was_dirty)
  local set = dirty_key
  if byte(dirty_key, -1) ~= 125 then
    local sum = 0
    for i = 1, #key do
      sum = sum + byte(key, i)
    end
    set = dirty_key .. sum % SLICES
  end
  if was_dirty == 1 then
    call('ZADD', set, 'LT', due, key)
  else
    call('ZADD', set, due, key)
  end
end
