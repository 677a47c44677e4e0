-- Reads this region's own counts of keys from the dirty set. Members whose state is gone leave the set.
--
-- KEYS[1]  the dirty set
-- KEYS[2+] some of its members
-- Reply    the cells of those keys (see cells.lua), 40 bytes each, in order
local cells = {}
for i = 2, #KEYS do
  local cell = own_cell(call('GET', KEYS[i]))
  if cell == GONE then
    call('SREM', KEYS[1], KEYS[i])
  end
  cells[i - 1] = cell
end
return table.concat(cells)
