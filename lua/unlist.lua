-- Takes slots of a Cluster off the list of those that may hold marks, unless somebody marked there meanwhile.
--
-- KEYS[1]  the list: a hash of slots, each with how often it was put there
-- ARGV     pairs: a slot, and that number as it was when the slot was found without marks
-- Reply    how many left it
local left = 0
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    left = left + redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return left
