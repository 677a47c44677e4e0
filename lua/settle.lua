-- Removes the marks of one collection once every peer has acknowledged it. A counter that counted since stays marked.
--
-- KEYS[1] and on  slices
-- ARGV[1]  the instant that collect.lua gave these marks
-- ARGV[2]  microseconds until counters that a peer could not place are due again; ARGV[3+] their keys
-- Reply    number of marks removed
local at = ARGV[1]
local unplaced = {}
for i = 3, #ARGV do
  unplaced[ARGV[i]] = true
end
local settled = 0
for i = 1, #KEYS do
  local members = call('ZRANGEBYSCORE', KEYS[i], at, at)
  if #members > 0 then
    local values = call('MGET', spread(members))
    local acknowledged, stay = {}, {}
    for j, key in ipairs(members) do
      -- Versions before 2026-12 set the dirty bit of a counter without making its mark due.
      local is_dirty = values[j] and byte(values[j]) % 2 == 1
      if is_dirty or unplaced[key] then
        stay[#stay + 1] = is_dirty and now or now + tonumber(ARGV[2])
        stay[#stay + 1] = key
      else
        acknowledged[#acknowledged + 1] = key
      end
    end
    if #stay > 0 then
      call('ZADD', KEYS[i], spread(stay))
    end
    if #acknowledged > 0 then
      settled = settled + call('ZREM', KEYS[i], spread(acknowledged))
    end
  end
end
return settled
