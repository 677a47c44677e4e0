-- Transfers of rights between regions: the donor's step on a request for rights, and the receiver's step on its answer.
-- Needs rights.lua and borrowed_capacity.lua in front.
--
-- Each step is one item of a decision call: its rule carries the strict flag and the step, its strict parameters are
-- followed by the step's arguments, and it returns three figures in the places of a limit's outcome. The call's cost is
-- the request for which the region asks: having less than that is low.
--
-- The transfer ledger is stored at the counter's key + '!', kind 0x48: incarnation (4), then entries: kind (1: 1 given, 2
-- received), the peer's name (1 + n), the peer's incarnation (4), id (6), units (6), quanta (7). Entries that are two ids
-- old are dropped at the next write. A bucket's entries are by its unit and size too, which their names end with: by these
-- loans and their tokens are counted.
local LEDGER = 72
local GIVEN, RECEIVED = 1, 2
-- The same as in tidegate/contract/rights.py.
local MAX_UNITS, MAX_QUANTA = 140737488355328, 9007199254740992

local function ledger_load(key, params)
  local raw = call('GET', key .. '!')
  local entries = {}
  if not raw or byte(raw) ~= LEDGER or unpack('<I4', raw, 2) ~= params.incarnation then
    return entries
  end
  local from = 6
  while from <= #raw do
    local kind, size
    kind, size, from = unpack('<BB', raw, from)
    local name = sub(raw, from, from + size - 1)
    local incarnation, id, units, quanta
    incarnation, id, units, quanta, from = unpack('<I4I6I6I7', raw, from + size)
    entries[#entries + 1] = { kind, name, incarnation, id, units, quanta }
  end
  return entries
end

local function entry_name(params, name)
  return params.algorithm < 3 and name or string.format('%s/%.0f/%.0f', name, params.unit, params.size)
end

local function ledger_entry(entries, kind, name, incarnation, id)
  -- Versions before 2026-12 wrote a bucket's entries under the name alone.
  local plain, units, quanta = string.match(name, '^[^/]*'), 0, 0
  for _, e in ipairs(entries) do
    if e[1] == kind and (e[2] == name or e[2] == plain) and e[3] == incarnation and e[4] == id and e[5] >= units then
      units, quanta = e[5], e[6]
    end
  end
  return units, quanta
end

-- Writes the ledger with one entry replaced. The ledger lives as long as its newest possible id.
local function ledger_save(key, params, current, entries, kind, name, incarnation, id, units, quanta)
  local parts = { pack('<BI4', LEDGER, params.incarnation) }
  for _, e in ipairs(entries) do
    if e[4] >= current - 1 and not (e[1] == kind and e[2] == name and e[3] == incarnation and e[4] == id) then
      parts[#parts + 1] = pack('<BB', e[1], #e[2]) .. e[2] .. pack('<I4I6I6I7', e[3], e[4], e[5], e[6])
    end
  end
  parts[#parts + 1] = pack('<BB', kind, #name) .. name .. pack('<I4I6I6I7', incarnation, id, units, quanta)
  local ttl = ttl_ms(fixed_start(params.length, params.anchor, current + 3) + params.skew - now)
  call('SET', key .. '!', table.concat(parts), 'PX', math.max(1, ttl))
end

local function rights_save(key, params, state)
  call('SET', key, rights_value(params, state), 'PX', rights_ttl_ms(params, state))
end

local function add_rights(state, id, units)
  if id == state.id then
    state.net = state.net + units
  elseif id < state.id then
    state.net_before = state.net_before + units
  else
    state.net_ahead = state.net_ahead + units
  end
end

-- Units of `id` that the donor may give away without breaking its own limit.
local function rights_giveable(params, state, id)
  if id == state.id + 1 then
    return now + params.skew >= fixed_start(params.length, params.anchor, id) and rights_owned(params, state, 1) or 0
  elseif params.algorithm == 2 then
    -- The receiver's clock may be behind by the skew: keep rights for entries that it would still count.
    local used = log_used(state, params.length + params.skew)
    return id >= state.id - 1 and id <= state.id and rights_owned(params, state, id - state.id) - used or 0
  end
  return id == state.id and rights_left(params, state) or 0
end

local function rights_give(key, params, entries, ask)
  local state = rights_load(key, params)
  local total = ledger_entry(entries, GIVEN, ask.name, ask.incarnation, ask.id)
  local left = rights_giveable(params, state, ask.id)
  local units = 0
  if total == ask.units and left > 0 then
    units = math.max(1, floor(left / 2))
    add_rights(state, ask.id, -units)
    rights_save(key, params, state)
    ledger_save(key, params, state.id, entries, GIVEN, ask.name, ask.incarnation, ask.id, total + units, 0)
  end
  return total + units, 0, math.max(0, left - units), total == ask.units and units == 0, total ~= ask.units
end

local function capacity_give(key, params, entries, ask)
  local state = capacity_load(key, params)
  -- While a change of the bucket is on its way, its parts are not the same in both regions. Versions before 2026-12 send 0.
  if ask.size > 0 and (ask.unit ~= params.unit or ask.size ~= params.size) then
    return ask.units, ask.quanta, capacity_of(params, state), true, false
  end
  local total, quanta = ledger_entry(entries, GIVEN, ask.name, ask.incarnation, ask.id)
  local knows_all = total == ask.units and quanta == ask.quanta
  -- The totals must stay exact as doubles.
  local is_exact = quanta + state.level < MAX_QUANTA and total + params.size < MAX_UNITS
  local units = knows_all and is_exact and ask.id == state.epoch and units_to_lend(params, state, ask.have, ask.rate) or 0
  if units > 0 then
    -- Round up, so that the remaining tokens fit into the remaining capacity; in two steps, as the product may be large.
    local capacity = capacity_of(params, state)
    local each = floor(state.level / capacity)
    local moved = math.min(state.level, each * units + ceil((state.level - each * capacity) * units / capacity))
    state.lent, state.level = state.lent + units, state.level - moved
    total, quanta = total + units, quanta + moved
    capacity_save(key, params, state)
    ledger_save(key, params, state.epoch, entries, GIVEN, ask.name, ask.incarnation, ask.id, total, quanta)
  end
  return total, quanta, capacity_of(params, state), knows_all and units == 0, not knows_all
end

-- Step 1, give. Arguments: the asker's incarnation, id, the donor's incarnation as the asker knows it, units and quanta
-- that it received before, units that it has, its demand rate, a bucket's unit and size (doubles), its name. Outcome:
-- total units given; units kept x 4, + 1 if the donor had nothing to give, + 2 if it gave nothing because the asker lacks
-- earlier gifts; total quanta.
local function step_give(key, params, arguments)
  local ask = {}
  local to, from
  ask.incarnation, ask.id, to, ask.units, ask.quanta, ask.have, ask.rate, ask.unit, ask.size, from =
    unpack('<ddddddddd', arguments)
  ask.name = entry_name(params, sub(arguments, from))
  if to ~= params.incarnation then
    ask.units, ask.quanta = 0, 0
  end
  local give = params.algorithm < 3 and rights_give or capacity_give
  local units, quanta, have, is_empty, is_repeat = give(key, params, ledger_load(key, params), ask)
  return quanta, units, have * 4 + (is_empty and 1 or 0) + (is_repeat and 2 or 0)
end

-- Step 2, receive. Arguments: the donor's incarnation, the incarnation that it gave to, id, total units and quanta given
-- (doubles), the donor's name. Outcome: units gained; units there x 2, + 1 if low; 1, or 0 if the gift was refused.
local function step_receive(key, params, arguments, cost)
  local incarnation, to, id, total, total_quanta, from = unpack('<ddddd', arguments)
  local name = entry_name(params, sub(arguments, from))
  local is_bucket_rule = params.algorithm >= 3
  local state = is_bucket_rule and capacity_load(key, params) or rights_load(key, params)
  local current = is_bucket_rule and state.epoch or state.id
  local reach = is_bucket_rule and 0 or 1
  if to ~= params.incarnation or id < current - reach or id > current + reach then
    return 0, 0, 0
  end
  local entries = ledger_load(key, params)
  local known, known_quanta = ledger_entry(entries, RECEIVED, name, incarnation, id)
  local gained = math.max(0, total - known)
  if gained > 0 then
    if is_bucket_rule then
      state.borrowed, state.level = state.borrowed + gained, state.level + total_quanta - known_quanta
      capacity_save(key, params, state)
    else
      add_rights(state, id, gained)
      rights_save(key, params, state)
    end
    ledger_save(key, params, current, entries, RECEIVED, name, incarnation, id, total, total_quanta)
  end
  local have = is_bucket_rule and floor(state.level / quanta_per_unit(params)) or rights_left(params, state)
  local low = have < (is_bucket_rule and capacity_low_water(params, state, cost) or rights_low_water(params, state, cost))
  return 1, gained, math.max(0, have) * 2 + (low and 1 or 0)
end

-- The id with the fewest rights: a log also needs rights of the window before.
local function scarcest_id(params, state)
  if params.algorithm == 2 and rights_owned(params, state, -1) < rights_owned(params, state, 0) then
    return state.id - 1
  end
  return state.id
end

-- Step 3, basis: the figures of a request for rights. Outcome: units there x 2, + 1 if low; demand rate; id.
local function step_basis(key, params, _, cost)
  if params.algorithm >= 3 then
    local state = capacity_load(key, params)
    local low = floor(state.level / quanta_per_unit(params)) < capacity_low_water(params, state, cost)
    return state.epoch, capacity_of(params, state) * 2 + (low and 1 or 0), demand_rate(state)
  end
  local state = rights_load(key, params)
  local have = rights_left(params, state)
  local low = have < rights_low_water(params, state, cost)
  return scarcest_id(params, state), math.max(0, have) * 2 + (low and 1 or 0), rights_demand(params, state)
end

-- Step 4, known: what was received from one epoch of a peer's store under an id. Arguments: the peer's incarnation, id
-- (doubles), its name. Outcome: total units, total quanta, this store's incarnation.
local function step_known(key, params, arguments)
  local incarnation, id, from = unpack('<dd', arguments)
  local name = entry_name(params, sub(arguments, from))
  local units, quanta = ledger_entry(ledger_load(key, params), RECEIVED, name, incarnation, id)
  return params.incarnation, units, quanta
end

-- Step 5, used. Outcome: units that requests took here and that still count, without any transfers.
local function step_used(key, params)
  local used
  if params.algorithm >= 3 then
    local state = capacity_load(key, params)
    used = math.max(0, capacity_of(params, state) - floor(state.level / quanta_per_unit(params)))
  else
    local state = rights_load(key, params)
    if params.algorithm == 2 then
      used = log_used(state, params.length)
    else
      local before = params.algorithm == 1 and ceil(ticks_left(params, state) * state.taken_before / params.ticks) or 0
      used = state.taken + before
    end
  end
  return 0, used, 0
end

local STEPS = { step_give, step_receive, step_basis, step_known, step_used }

-- Decides one strict limit of a check, or takes one step. `packed` are its parameters, then the step's arguments.
local function strict(key, algorithm, step, packed, cost, dirty_key)
  local params, from = strict_params(algorithm, packed, dirty_key)
  if not params then
    if step > 0 then
      return NEVER, 0, REFUSED
    end
    return REFUSED_WAIT, 0, REFUSED, 0, REFUSED
  elseif step > 0 then
    return STEPS[step](key, params, sub(packed, from), cost)
  elseif algorithm < 3 then
    return rights_decide(key, params, cost)
  end
  return capacity_decide(key, params, cost, algorithm == 4)
end
