-- Keeps the marker true, twice a second: raises what it says of the shares' revision and the horizon, begins a pending
-- epoch for which the caller's shares are proven, and lets nodes know that they are.
--
-- KEYS[1] the marker; KEYS[2] the region's state
-- ARGV[1] the run id that this agent joined; ARGV[2] revision of its shares; ARGV[3] how long rights should last before
--         more are asked for, in microseconds (0: there is nobody to ask)
-- ARGV[4] the epoch for which its shares are proven, 0 for none; ARGV[5] what the state then says; ARGV[6] for how many
--         milliseconds
-- Reply   { incarnation, revision, horizon_us, now_us, 1 if pending, the state }; from now_us on no node with shares older
--         than that revision decides. Nothing where this is another store by now, or nobody has joined it.
local PENDING = 9007199254740992
local stored = call('GET', KEYS[1])
if not stored then
  return false
end
local incarnation, revision, birth, horizon, from = unpack('<dddd', stored)
if sub(stored, from) ~= ARGV[1] then
  return false
end
local proven = incarnation == tonumber(ARGV[4])
if revision == PENDING and proven then
  revision, birth = tonumber(ARGV[2]), now -- what was admitted up to now, nobody knows
end
revision, horizon = math.max(revision, tonumber(ARGV[2])), tonumber(ARGV[3])
local value = pack('<dddd', incarnation, revision, birth, horizon) .. ARGV[1]
if value ~= stored then
  call('SET', KEYS[1], value)
end
if proven then
  call('SET', KEYS[2], ARGV[5], 'PX', ARGV[6])
end
return { incarnation, string.format('%.0f', revision), horizon, now, revision == PENDING and 1 or 0,
  call('GET', KEYS[2]) }
