-- Counters with news for other regions wait in one of SLICES sorted sets, by when their news is due. `dirty_key` is the
-- script's KEYS[1]; a slice's own key is that with its number behind. On a Cluster each slot has one sorted set, the dirty
-- key with the slot's tag at its end; there slices are made of slots.
--
-- A counter's bit 0 ("dirty") says that it counted since it was last collected: from then on its mark says when it is due.
local SLICES = 8
-- News that matters little waits for more to come along. With the tick that finds it that is a second.
local LAZY_US = 800000

-- When what a counter has to tell is due now that cost units more were taken, and whether it was marked before; nothing
-- where its mark stays as it is. `own` is what this region took, `room` what is left in the world, both by now.
--
-- News is due at once where own passes a multiple of a step: the power of two that is an eighth to a sixteenth of room.
-- Whatever was sent last, no more than a step is unsent then, and nothing has to remember what was.
local function due_after(dirty, own, room, cost)
  local _, exponent = math.frexp(room)
  if own % (exponent > 4 and math.ldexp(1, exponent - 4) or 1) < cost then
    return now, dirty
  elseif dirty == 0 then
    return now + LAZY_US, 0
  end
end

-- Marks a counter as due at an instant. One that was marked before is due at the earlier of the two.
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
