-- Shares a region's load factors, if whoever does so still holds the right to decide.
--
-- KEYS[1] the lease; KEYS[2] the factors; both in one slot
-- ARGV[1] who decides; ARGV[2] the factors; ARGV[3] for how long they are kept, in milliseconds
-- Reply   1, or 0 when somebody else holds the lease: then nothing was done
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
