-- Divides the telling of counts over the nodes of a region: each slice is told by the node that holds its lease.
--
-- KEYS[i]  the lease of slice i - 1
-- ARGV[1]  this node; ARGV[2] how long a lease lasts, in milliseconds; ARGV[3] the most slices that it should hold
-- Reply    the slices that it holds now. What is beyond its part is let go, so that nodes that come get theirs.
local held, most = {}, tonumber(ARGV[3])
for i = 1, #KEYS do
  local holder = redis.call('GET', KEYS[i])
  if holder == ARGV[1] and #held >= most then
    redis.call('DEL', KEYS[i])
  elseif holder == ARGV[1] then
    redis.call('PEXPIRE', KEYS[i], ARGV[2])
    held[#held + 1] = i - 1
  end
end
for i = 1, #KEYS do
  if #held < most and redis.call('SET', KEYS[i], ARGV[1], 'NX', 'PX', ARGV[2]) then
    held[#held + 1] = i - 1
  end
end
return held
