-- Makes marks due that wait: what the agent before sent and did not settle is sent once more by who holds the slices now.
--
-- KEYS     slices
-- ARGV[1]  of each at most so many
-- Reply    how many; again, until there are none
local recalled = 0
for i = 1, #KEYS do
  local members = call('ZRANGEBYSCORE', KEYS[i], '(' .. string.format('%.0f', now), '+inf', 'LIMIT', 0, ARGV[1])
  local pairs_of = {}
  for _, member in ipairs(members) do
    pairs_of[#pairs_of + 1] = now
    pairs_of[#pairs_of + 1] = member
  end
  if #members > 0 then
    call('ZADD', KEYS[i], spread(pairs_of))
  end
  recalled = recalled + #members
end
return recalled
