-- Joining a store: keep its marker, or begin a new life of it where data may have been lost. Mirrors `joined` of
-- data_plane/domain/regions/marker.py. A node runs it on every connection before anything else is sent over it, with the
-- run id and the maxmemory-policy that it has just read from this very server (INFO), and again when the revision of the
-- shares or the horizon changes.
--
-- KEYS[1] the marker
-- ARGV[1] run id; ARGV[2] maxmemory-policy; ARGV[3] revision of the node's shares
-- ARGV[4] a name for a new incarnation: a random number from 1 to 2^32 - 1
-- ARGV[5] how long rights should last before more are asked for, in microseconds; 0: leave what is there
-- Reply   { incarnation, revision, birth_us, now_us }: what holds now; or the word evicting_store
-- Value   incarnation, revision, birth_us, horizon_us (8 each, doubles), run id; no expiry
if ARGV[2] ~= 'noeviction' then
  return 'evicting_store'
end
local run_id, revision = ARGV[1], tonumber(ARGV[3])
local incarnation, birth, horizon = tonumber(ARGV[4]), now, tonumber(ARGV[5])
local stored = call('GET', KEYS[1])
if stored then
  local old_incarnation, old_revision, old_birth, old_horizon, from = unpack('<dddd', stored)
  revision = math.max(revision, old_revision)
  if horizon == 0 then
    horizon = old_horizon
  end
  if sub(stored, from) == run_id then
    incarnation, birth = old_incarnation, old_birth
  end
end
call('SET', KEYS[1], pack('<dddd', incarnation, revision, birth, horizon) .. run_id)
return { incarnation, revision, birth, now }
