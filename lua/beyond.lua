-- A limit that more follows of than its rule: rights of a strict one, or who is silent. The last part of a family that
-- decide.lua makes when it meets such a limit.
local function decide_beyond(key, rule, a, b, c, cost, packed)
  if rule >= 64 then
    return silent(rule % 8, key, a, b, c, cost, packed)
  end
  return strict(key, rule % 8, b, packed, cost, KEYS[1])
end
