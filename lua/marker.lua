-- Joining a store: keep its marker, or begin a new life of it where data may have been lost. Mirrors `joined` of
-- data_plane/domain/regions/marker.py. A node runs it for each slot group on every connect, before anything else that
-- is strict, with the run id and the maxmemory-policy that it has just read from this very server (INFO, CONFIG GET).
--
-- KEYS[1] the marker of the slot group
-- ARGV[1] run id; ARGV[2] maxmemory-policy; ARGV[3] the node's revision of the shares
-- ARGV[4] a name for a new incarnation: a random number from 1 to 2^32 - 1
-- ARGV[5] 1 if the control plane knows that this region never had a store before, else 0
-- Reply   { incarnation, revision, birth_us }: what holds now, birth 0 where nothing can have been lost; or the word
--         evicting_store
-- Value   incarnation, revision, birth_us (8 each, doubles), run id; no expiry
if ARGV[2] ~= 'noeviction' then
  return 'evicting_store'
end
local run_id, revision = ARGV[1], tonumber(ARGV[3])
local incarnation, birth = tonumber(ARGV[4]), ARGV[5] == '1' and 0 or now
local stored = call('GET', KEYS[1])
if stored then
  local old_incarnation, old_revision, old_birth, from = unpack('<ddd', stored)
  revision = math.max(revision, old_revision)
  if sub(stored, from) == run_id then
    incarnation, birth = old_incarnation, old_birth
  else
    birth = now
  end
end
call('SET', KEYS[1], pack('<ddd', incarnation, revision, birth) .. run_id)
return { incarnation, revision, birth }
