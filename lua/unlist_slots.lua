-- Removes slots of a Cluster from the list of slots with marks, unless a process marked there meanwhile.
--
-- KEYS[1]  the list: a hash of slots, each with how often it was noted
-- ARGV     pairs: a slot, and that number when the slot was found without marks
-- Reply    number of slots removed
local removed = 0
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    removed = removed + redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return removed
