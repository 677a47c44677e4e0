-- Makes waiting marks due now, so that the new holder of these slices sends again what the holder before did not settle.
--
-- KEYS     slices
-- ARGV[1]  maximum number of marks of each slice
-- Reply    number of marks made due; call again until it is 0
local made_due = 0
for i = 1, #KEYS do
  local members = call('ZRANGEBYSCORE', KEYS[i], '(' .. string.format('%.0f', now), '+inf', 'LIMIT', 0, ARGV[1])
  local scores = {}
  for _, member in ipairs(members) do
    scores[#scores + 1] = now
    scores[#scores + 1] = member
  end
  if #members > 0 then
    call('ZADD', KEYS[i], spread(scores))
  end
  made_due = made_due + #members
end
return made_due
