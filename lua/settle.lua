-- Forgets the marks of what was collected at one time, once every peer has it. A counter that counted since then stays.
--
-- KEYS[1] and on  slices
-- ARGV[1]  the instant that collect gave them
-- ARGV[2]  in how many microseconds those are due again that a peer could not place yet; ARGV[3+] which these are
-- Reply    how many are forgotten
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
    local gone, stay = {}, {}
    for j, key in ipairs(members) do
      -- Nodes of versions before 2026-12 mark a counter that counts anew without making it due.
      local is_dirty = values[j] and byte(values[j]) % 2 == 1
      if is_dirty or unplaced[key] then
        stay[#stay + 1] = is_dirty and now or now + tonumber(ARGV[2])
        stay[#stay + 1] = key
      else
        gone[#gone + 1] = key
      end
    end
    if #stay > 0 then
      call('ZADD', KEYS[i], spread(stay))
    end
    if #gone > 0 then
      settled = settled + call('ZREM', KEYS[i], spread(gone))
    end
  end
end
return settled
