-- Marks counters as changed, whatever they are: a peer that was away is to be told everything once.
--
-- KEYS[1]  the dirty key, before the number of a slice
-- KEYS[2+] counters
-- Reply    how many were marked
local marked = 0
for i = 2, #KEYS do
  local key = KEYS[i]
  local raw = call('GET', key)
  if raw and (is_window(raw) or is_log(raw) or is_bucket(raw)) then
    if byte(raw) % 2 == 0 then
      call('SET', key, string.char(byte(raw) + 1) .. sub(raw, 2), 'KEEPTTL')
    end
    mark_dirty(KEYS[1], key)
    marked = marked + 1
  end
end
return marked
