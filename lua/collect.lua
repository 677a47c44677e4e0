-- Reads this region's own counts of keys from a slice. Members whose state is gone leave it.
--
-- KEYS[1]  the slice
-- KEYS[2+] some of its members
-- Reply    for each of those keys, in order, its cell and what is gone in the world (see cells.lua), 48 bytes
local cells = {}
for i = 2, #KEYS do
  local cell, known = own_cell(call('GET', KEYS[i]))
  if cell == GONE then
    call('ZREM', KEYS[1], KEYS[i])
  end
  cells[i - 1] = cell .. pack('<i8', known)
end
return table.concat(cells)
