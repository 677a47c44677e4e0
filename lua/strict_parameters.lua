-- Reads the strict parameters that a process passes with a strict limit, and the store's epoch marker.
-- Needs prelude.lua and windows.lua in front.
--
-- Strict parameters travel packed behind the rule (see decide.lua), all doubles but the count: limit, four figures of the
-- algorithm, skew_us, since_us, revision, number of quotas (1), then from_id and share of each, oldest first. The four
-- figures are length_us (0: months), anchor_us, ticks, tick_us; for buckets the epoch's length_us, rate, unit, size.

-- The epoch marker: incarnation, revision, birth_us, horizon_us; read once a call, false before anybody joined.
local marker
local function store_marker(dirty_key)
  if marker == nil then
    local raw = call('GET', dirty_key .. '!m')
    marker = raw and { unpack('<dddd', raw) } or false
  end
  return marker
end

local function id_of(params, at)
  return fixed_id(params.length, params.anchor, at)
end

-- Returns one limit's parameters, and where the bytes behind them begin. The parameters are nil if this process must not
-- decide: the store has no marker, or the marker has newer shares. `older_too` accepts older shares, for calls that
-- decide nothing.
local function strict_params(algorithm, packed, dirty_key, older_too)
  local current = store_marker(dirty_key)
  local params = { algorithm = algorithm, quotas = {}, anchor = 0 }
  local revision, p2, p3, p4, count, from
  params.limit, params.length, p2, p3, p4, params.skew, params.since, revision, count, from = unpack('<ddddddddB', packed)
  if not current or current[2] > revision and not older_too then
    return nil, from
  end
  if algorithm < 3 then
    params.anchor, params.ticks, params.tick = p2, p3, p4
  else
    params.rate, params.unit, params.size = p2, p3, p4
  end
  for i = 1, count do
    local from_id, share
    from_id, share, from = unpack('<dd', packed, from)
    params.quotas[i] = { from_id, share }
  end
  params.incarnation, params.horizon, params.birth = current[1], current[4], current[3]
  -- A limit made after the epoch began lost nothing with the epoch before.
  if params.since >= params.birth + params.skew then
    params.birth = 0
  end
  -- Windows up to this one may have begun before this epoch, by some clock. What was admitted in them is unknown, so the
  -- region owns no rights there.
  params.quiet = params.birth > 0 and id_of(params, params.birth + params.skew) or -1152921504606846976
  return params, from
end

-- The region's own share under an id. The oldest quota also holds for all earlier ids.
local function rights_share(params, id)
  if id <= params.quiet then
    return 0
  end
  for i = #params.quotas, 1, -1 do
    if params.quotas[i][1] <= id then
      return params.quotas[i][2]
    end
  end
  return params.quotas[1][2]
end
