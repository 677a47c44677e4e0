-- Rights that move between regions: what a donor's store does with a question, and a receiver's with the answer. Wants
-- rights and loans in front.
--
-- Each step is one item of a decision call: its rule says 'strict' and which step it is, its terms are followed by
-- the step's arguments, and three figures come back in the places of a limit's outcome. The call's cost is what the
-- request wants for which the region asks: to have less than that is low.
--
-- Second key (the counter's + '!'), kind 0x48, the book: incarnation (4), then entries: what (1: 1 given, 2 received), the
-- peer's name (1 + n), the peer's incarnation (4), id (6), units (6), quanta (7). Entries two ids old are dropped at the
-- next write.
local BOOK = 72
local GIVEN, RECEIVED = 1, 2
-- As tidegate/contract/rights.py has them.
local MAX_UNITS, MAX_QUANTA = 140737488355328, 9007199254740992

local function book_load(key, t)
  local raw = call('GET', key .. '!')
  local entries = {}
  if not raw or byte(raw) ~= BOOK or unpack('<I4', raw, 2) ~= t.incarnation then
    return entries
  end
  local from = 6
  while from <= #raw do
    local what, size
    what, size, from = unpack('<BB', raw, from)
    local name = sub(raw, from, from + size - 1)
    local incarnation, id, units, quanta
    incarnation, id, units, quanta, from = unpack('<I4I6I6I7', raw, from + size)
    entries[#entries + 1] = { what, name, incarnation, id, units, quanta }
  end
  return entries
end

local function book_known(entries, what, name, incarnation, id)
  for _, e in ipairs(entries) do
    if e[1] == what and e[2] == name and e[3] == incarnation and e[4] == id then
      return e[5], e[6]
    end
  end
  return 0, 0
end

-- Writes the book with one entry replaced. It lives as long as any id that it may speak of.
local function book_save(key, t, current, entries, what, name, incarnation, id, units, quanta)
  local parts = { pack('<BI4', BOOK, t.incarnation) }
  for _, e in ipairs(entries) do
    if e[4] >= current - 1 and not (e[1] == what and e[2] == name and e[3] == incarnation and e[4] == id) then
      parts[#parts + 1] = pack('<BB', e[1], #e[2]) .. e[2] .. pack('<I4I6I6I7', e[3], e[4], e[5], e[6])
    end
  end
  parts[#parts + 1] = pack('<BB', what, #name) .. name .. pack('<I4I6I6I7', incarnation, id, units, quanta)
  local ttl = ttl_ms(fixed_start(t.length, t.anchor, current + 3) + t.skew - now)
  call('SET', key .. '!', table.concat(parts), 'PX', math.max(1, ttl))
end

local function rights_save(key, t, s)
  call('SET', key, rights_value(t, s), 'PX', rights_ttl_ms(t, s))
end

local function rights_moved(s, id, units)
  if id == s.id then
    s.net = s.net + units
  elseif id < s.id then
    s.net_before = s.net_before + units
  else
    s.net_ahead = s.net_ahead + units
  end
end

-- Units of `id` that may be given away: what is left keeps every condition of the donor.
local function rights_giveable(t, s, id)
  if id == s.id + 1 then
    return now + t.skew >= fixed_start(t.length, t.anchor, id) and rights_owned(t, s, 1) or 0
  elseif t.algorithm == 2 then
    -- The receiver's clock may be behind by the skew: entries that it would still count stay covered.
    return id >= s.id - 1 and id <= s.id and rights_owned(t, s, id - s.id) - log_used(s, t.length + t.skew) or 0
  end
  return id == s.id and rights_spare(t, s) or 0
end

local function rights_give(key, t, entries, ask)
  local s = rights_load(key, t)
  local total = book_known(entries, GIVEN, ask.name, ask.incarnation, ask.id)
  local left = rights_giveable(t, s, ask.id)
  local units = 0
  if total == ask.units and left > 0 then
    units = math.max(1, floor(left / 2))
    rights_moved(s, ask.id, -units)
    rights_save(key, t, s)
    book_save(key, t, s.id, entries, GIVEN, ask.name, ask.incarnation, ask.id, total + units, 0)
  end
  return total + units, 0, math.max(0, left - units), total == ask.units and units == 0, total ~= ask.units
end

local function loan_give(key, t, entries, ask)
  local s = loan_load(key, t)
  local total, quanta = book_known(entries, GIVEN, ask.name, ask.incarnation, ask.id)
  local knows_all = total == ask.units and quanta == ask.quanta
  -- All that was ever given must be said exactly, in doubles.
  local sayable = quanta + s.level < MAX_QUANTA and total + t.size < MAX_UNITS
  local units = knows_all and sayable and ask.id == s.epoch and loan_size(t, s, ask.have, ask.rate) or 0
  if units > 0 then
    -- Rounded up, so that what stays fits into the capacity that stays. In two steps, because the product may be large.
    local capacity = loan_capacity(t, s)
    local each = floor(s.level / capacity)
    local moved = math.min(s.level, each * units + ceil((s.level - each * capacity) * units / capacity))
    s.lent, s.level = s.lent + units, s.level - moved
    total, quanta = total + units, quanta + moved
    loan_save(key, t, s)
    book_save(key, t, s.epoch, entries, GIVEN, ask.name, ask.incarnation, ask.id, total, quanta)
  end
  return total, quanta, loan_capacity(t, s), knows_all and units == 0, not knows_all
end

-- Step 1, give. Arguments: asker's incarnation, id, the donor's incarnation as the asker knows it, units and quanta
-- known, have, rate (doubles), asker's name. Outcome: units ever given, what is kept x 4 + 1 if there was nothing to add
-- + 2 if nothing was added because the asker did not know all, quanta ever given.
local function step_give(key, t, arguments)
  local ask = {}
  local to, from
  ask.incarnation, ask.id, to, ask.units, ask.quanta, ask.have, ask.rate, from = unpack('<ddddddd', arguments)
  ask.name = sub(arguments, from)
  if to ~= t.incarnation then
    ask.units, ask.quanta = 0, 0
  end
  local give = t.algorithm < 3 and rights_give or loan_give
  local units, quanta, have, is_empty, is_repeat = give(key, t, book_load(key, t), ask)
  return quanta, units, have * 4 + (is_empty and 1 or 0) + (is_repeat and 2 or 0)
end

-- Step 2, receive. Arguments: giver's incarnation, the one it gave to, id, units and quanta ever given (doubles),
-- giver's name. Outcome: units gained, what is there x 2 + 1 if low, 0 if it was not taken at all, else 1.
local function step_receive(key, t, arguments, cost)
  local incarnation, to, id, total, total_quanta, from = unpack('<ddddd', arguments)
  local name = sub(arguments, from)
  local is_loan = t.algorithm >= 3
  local s = is_loan and loan_load(key, t) or rights_load(key, t)
  local current = is_loan and s.epoch or s.id
  local reach = is_loan and 0 or 1
  if to ~= t.incarnation or id < current - reach or id > current + reach then
    return 0, 0, 0
  end
  local entries = book_load(key, t)
  local known, known_quanta = book_known(entries, RECEIVED, name, incarnation, id)
  local gained = math.max(0, total - known)
  if gained > 0 then
    if is_loan then
      s.borrowed, s.level = s.borrowed + gained, s.level + total_quanta - known_quanta
      loan_save(key, t, s)
    else
      rights_moved(s, id, gained)
      rights_save(key, t, s)
    end
    book_save(key, t, current, entries, RECEIVED, name, incarnation, id, total, total_quanta)
  end
  local have = is_loan and floor(s.level / loan_quanta(t)) or rights_spare(t, s)
  local low = have < (is_loan and loan_low_water(t, s, cost) or rights_low_water(t, s, cost))
  return 1, gained, math.max(0, have) * 2 + (low and 1 or 0)
end

-- The id whose rights are missed most: a log needs those of the window before too.
local function scarcest(t, s)
  if t.algorithm == 2 and rights_owned(t, s, -1) < rights_owned(t, s, 0) then
    return s.id - 1
  end
  return s.id
end

-- Step 3, basis: what to ask with. Outcome: have x 2 + 1 if low, rate, id.
local function step_basis(key, t, _, cost)
  if t.algorithm >= 3 then
    local s = loan_load(key, t)
    local low = floor(s.level / loan_quanta(t)) < loan_low_water(t, s, cost)
    return s.epoch, loan_capacity(t, s) * 2 + (low and 1 or 0), lately(s)
  end
  local s = rights_load(key, t)
  local have = rights_spare(t, s)
  local low = have < rights_low_water(t, s, cost)
  return scarcest(t, s), math.max(0, have) * 2 + (low and 1 or 0), rights_demand(t, s)
end

-- Step 4, known: what a peer's life gave under an id. Arguments: its incarnation, id (doubles), its name. Outcome: units,
-- quanta, the incarnation of this store.
local function step_known(key, t, arguments)
  local incarnation, id, from = unpack('<dd', arguments)
  local units, quanta = book_known(book_load(key, t), RECEIVED, sub(arguments, from), incarnation, id)
  return t.incarnation, units, quanta
end

-- Step 5, used. Outcome: the units that requests took here and that still count, whatever rights came and went.
local function step_used(key, t)
  local used
  if t.algorithm >= 3 then
    local s = loan_load(key, t)
    used = math.max(0, loan_capacity(t, s) - floor(s.level / loan_quanta(t)))
  else
    local s = rights_load(key, t)
    if t.algorithm == 2 then
      used = log_used(s, t.length)
    else
      used = s.taken + (t.algorithm == 1 and ceil(ticks_left(t, s) * s.taken_before / t.ticks) or 0)
    end
  end
  return 0, used, 0
end

local STEPS = { step_give, step_receive, step_basis, step_known, step_used }

-- One strict limit of a check, or one step: `packed` are its terms, and the step's arguments behind them.
local function strict(key, algorithm, step, packed, cost, dirty_key)
  local t, from = strict_terms(algorithm, packed, dirty_key)
  if not t then
    if step > 0 then
      return NEVER, 0, REFUSED
    end
    return REFUSED_WAIT, 0, REFUSED, 0, REFUSED
  elseif step > 0 then
    return STEPS[step](key, t, sub(packed, from), cost)
  elseif algorithm < 3 then
    return rights_decide(key, t, cost)
  end
  return loan_decide(key, t, cost, algorithm == 4)
end
