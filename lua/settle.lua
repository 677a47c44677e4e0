-- Takes keys out of a slice once every peer has what was collected. A key that counted since then stays.
--
-- KEYS[1]  the slice
-- KEYS[2+] keys
-- ARGV[1]  the cells that were collected of them and ACKed by every peer, 40 bytes each, in order
-- Reply    how many left it
local settled = 0
for i = 2, #KEYS do
  local key = KEYS[i]
  local raw = call('GET', key)
  local cell = own_cell(raw)
  if cell == GONE then
    call('ZREM', KEYS[1], key)
    settled = settled + 1
  elseif cell == sub(ARGV[1], 40 * (i - 2) + 1, 40 * (i - 1)) then
    call('SET', key, string.char(byte(raw) - 1) .. sub(raw, 2), 'KEEPTTL')
    call('ZREM', KEYS[1], key)
    settled = settled + 1
  end
end
return settled
