-- Publishes a region's load factors, if the caller still holds the lease.
--
-- KEYS[1] the lease; KEYS[2] the factors; both in one slot
-- ARGV[1] the caller's name; ARGV[2] the factors; ARGV[3] their TTL in milliseconds
-- Reply   1; 0 if another agent holds the lease, with nothing done
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
return 1
