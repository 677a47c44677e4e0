-- Marks counters of shared limits as due now, so that they are sent again.
--
-- KEYS[1]  the dirty key, before the number of a slice
-- KEYS[2+] counters
-- Reply    number of counters
for i = 2, #KEYS do
  mark_dirty(KEYS[1], KEYS[i], now, 1)
end
return #KEYS - 1
