-- Joining a store: keep its epoch, or make a new one pending where data may have been lost. A process runs it on every
-- connection before anything else is sent over it, with the run id and the maxmemory-policy that it has just read from
-- this very server (INFO); agents also where the marker is gone.
--
-- KEYS[1] the marker
-- ARGV[1] run id; ARGV[2] maxmemory-policy; ARGV[3] a name for a new epoch: a random number from 1 to 2^32 - 1
-- Reply   { incarnation }: what holds now; or the word evicting_store
-- Value   incarnation, revision, birth_us, horizon_us (8 each, doubles), run id; no expiry. A pending epoch has the
--         revision 2^53: every script refuses strict limits, whatever shares its caller has, until raise.lua begins it.
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
