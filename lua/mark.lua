-- Marks counters as due now, whatever they are: what peers know of them is to be sent once more.
--
-- KEYS[1]  the dirty key, before the number of a slice
-- KEYS[2+] counters
-- Reply    how many
for i = 2, #KEYS do
  mark_dirty(KEYS[1], KEYS[i], now, 1)
end
return #KEYS - 1
