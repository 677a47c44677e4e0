-- Raises what the marker says of the shares' revision and of the horizon, in the life that this node has joined.
--
-- KEYS[1] the marker
-- ARGV[1] the run id that this node joined; ARGV[2] revision of its shares
-- ARGV[3] how long rights should last before more are asked for, in microseconds
-- Reply   now_us: from here on no node with older shares decides; or nothing, where this is another life by now
local stored = call('GET', KEYS[1])
if not stored then
  return false
end
local incarnation, revision, birth, _, from = unpack('<dddd', stored)
if sub(stored, from) ~= ARGV[1] then
  return false
end
revision = math.max(revision, tonumber(ARGV[2]))
call('SET', KEYS[1], pack('<dddd', incarnation, revision, birth, tonumber(ARGV[3])) .. ARGV[1])
return now
