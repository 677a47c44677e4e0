-- What a node hands to a script of strict limits: the limit, the region's part in it under each id, and, from the marker,
-- which life of the store this is. Wants prelude and windows in front.
--
-- Terms travel packed behind the rule (see decide.lua), all doubles but the last: limit, four figures of the algorithm,
-- skew_us, since_us, revision, number of quotas (1), then from_id and share of each, oldest first. The four figures are
-- length_us (0: months), anchor_us, ticks, tick_us; for buckets the epoch's length_us, rate, unit, size.

-- What holds of this store: incarnation, revision, birth_us, horizon_us; read once a call, false where none has joined.
local marker
local function marked(dirty_key)
  if marker == nil then
    local raw = call('GET', dirty_key .. '!m')
    marker = raw and { unpack('<dddd', raw) } or false
  end
  return marker
end

local function id_of(t, at)
  return fixed_id(t.length, t.anchor, at)
end

-- The terms of one limit, or nil where this node must not decide: nobody joined the store, or it is newer than the node.
-- `older_too`: where nothing is decided, terms of older shares do.
local function strict_terms(algorithm, packed, dirty_key, older_too)
  local life = marked(dirty_key)
  local t = { algorithm = algorithm, quotas = {}, anchor = 0 }
  local revision, p2, p3, p4, count, from
  t.limit, t.length, p2, p3, p4, t.skew, t.since, revision, count, from = unpack('<ddddddddB', packed)
  if not life or life[2] > revision and not older_too then
    return nil, from
  end
  if algorithm < 3 then
    t.anchor, t.ticks, t.tick = p2, p3, p4
  else
    t.rate, t.unit, t.size = p2, p3, p4
  end
  for i = 1, count do
    local from_id, share
    from_id, share, from = unpack('<dd', packed, from)
    t.quotas[i] = { from_id, share }
  end
  t.incarnation, t.horizon, t.birth = life[1], life[4], life[3]
  -- A limit that is younger than the store has lost nothing with an older one.
  if t.since >= t.birth + t.skew then
    t.birth = 0
  end
  t.quiet = t.birth > 0 and id_of(t, t.birth + t.skew) or -1152921504606846976
  return t, from
end

-- E: what the region owns of its own under an id. The oldest quota holds for all earlier ids too.
local function rights_share(t, id)
  if id <= t.quiet then
    return 0
  end
  for i = #t.quotas, 1, -1 do
    if t.quotas[i][1] <= id then
      return t.quotas[i][2]
    end
  end
  return t.quotas[1][2]
end
