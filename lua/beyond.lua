-- A limit that more follows of than its rule: rights of a strict one, or who is silent. The last part of a family that
-- decide.lua makes when it meets such a limit; of its two families it makes those that it needs.
local decide_strict, decide_silent

local function decide_beyond(key, rule, a, b, c, cost, packed)
  if rule >= 64 then
    decide_silent = decide_silent or silences()
    return decide_silent(rule % 8, key, a, b, c, cost, packed)
  end
  decide_strict = decide_strict or rights()
  return decide_strict(key, rule % 8, b, packed, cost, KEYS[1])
end
