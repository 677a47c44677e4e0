-- The store's epoch marker and its two scripts, each a function: data_plane/store/scripts.py says which a call runs.
--
-- Value   incarnation, revision, birth_us, horizon_us (doubles), run id; it never expires. A pending epoch has the
--         revision 2^53, so every script refuses strict limits until raise_epoch_marker begins the epoch.
local PENDING = 9007199254740992

-- Joins a store: keeps its epoch marker, or writes a new one where data may have been lost. Every process runs it on each
-- connection before anything else, with the run id and maxmemory-policy that it just read from this server (INFO).
-- Agents also run it when the marker is gone.
--
-- KEYS[1] the epoch marker
-- ARGV[1] run id; ARGV[2] maxmemory-policy; ARGV[3] name for a new epoch: a random number from 1 to 2^32 - 1
-- Reply   { incarnation } of the epoch in force; or the word evicting_store
local function join_store()
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
end

-- Keeps the epoch marker up to date; agents run it twice a second. It raises the marker's revision of shares, sets the
-- horizon, begins a pending epoch once the caller's shares are proven for it, and tells nodes that they are proven.
--
-- KEYS[1] the epoch marker; KEYS[2] the region's state
-- ARGV[1] run id that this agent joined; ARGV[2] revision of its shares; ARGV[3] horizon: for how long rights should
--         last before more are asked for, in microseconds (0: there is no peer to ask)
-- ARGV[4] the epoch for which its shares are proven, 0 for none; ARGV[5] the state to write then; ARGV[6] its TTL in ms
-- Reply   { incarnation, revision, horizon_us, now_us, 1 if pending, the state }: from now_us on no node with older
--         shares decides. False if the store is another one by now, or has no marker.
local function raise_epoch_marker()
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
    revision, birth = tonumber(ARGV[2]), now -- units admitted before now are unknown
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
end
