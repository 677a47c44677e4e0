-- Divides the slices of a region's counters over its agents: the holder of a slice's lease sends that slice's counts.
--
-- KEYS[i]  the lease of slice i - 1
-- ARGV[1]  this agent; ARGV[2] how long a lease lasts, in milliseconds; ARGV[3] maximum number of slices to hold
-- Reply    the slices that this agent holds now; surplus leases were released, so that agents that join get theirs
local held, max_slices = {}, tonumber(ARGV[3])
for i, holder in ipairs(redis.call('MGET', unpack(KEYS))) do
  if holder == ARGV[1] and #held >= max_slices then
    redis.call('DEL', KEYS[i])
  elseif holder == ARGV[1] then
    redis.call('PEXPIRE', KEYS[i], ARGV[2])
    held[#held + 1] = i - 1
  end
end
for i = 1, #KEYS do
  if #held < max_slices and redis.call('SET', KEYS[i], ARGV[1], 'NX', 'PX', ARGV[2]) then
    held[#held + 1] = i - 1
  end
end
return held
