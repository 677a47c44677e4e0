-- Decides limits that carry more than their rule: rights of strict limits, or reserves for unreachable peers.
-- This is a family of decide.lua (see data_plane/store/scripts.py); it makes its own two families when it needs them.
local decide_strict, decide_unreachable

local function decide_extended(key, rule, a, b, c, cost, packed)
  if rule >= 64 then
    decide_unreachable = decide_unreachable or unreachable()
    return decide_unreachable(rule % 8, key, a, b, c, cost, packed)
  end
  decide_strict = decide_strict or rights()
  return decide_strict(key, rule % 8, b, packed, cost, KEYS[1])
end
