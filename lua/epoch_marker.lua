-- Joins a store: keeps its epoch marker, or writes a new one where data may have been lost. Every process runs it on each
-- connection before anything else, with the run id and maxmemory-policy that it just read from this server (INFO).
-- Agents also run it when the marker is gone.
--
-- KEYS[1] the epoch marker
-- ARGV[1] run id; ARGV[2] maxmemory-policy; ARGV[3] name for a new epoch: a random number from 1 to 2^32 - 1
-- Reply   { incarnation } of the epoch in force; or the word evicting_store
-- Value   incarnation, revision, birth_us, horizon_us (doubles), run id; it never expires. A pending epoch has the
--         revision 2^53, so every script refuses strict limits until raise_epoch_marker.lua begins the epoch.
local PENDING = 9007199254740992
if ARGV[2] ~= 'noeviction' then
  return 'evicting_store'
end
local stored = call('GET', KEYS[1])
if stored then
  local incarnation, _, _, _, from = unpack('<dddd', stored)
  if sub(stored, from) == ARGV[1] then
    return { incarnation }
  end
end
local incarnation = tonumber(ARGV[3])
call('SET', KEYS[1], pack('<dddd', incarnation, PENDING, now, 0) .. ARGV[1])
return { incarnation }
