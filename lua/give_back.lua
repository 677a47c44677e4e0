-- Returns units that were consumed: by a check that was denied in another slot (Redis Cluster), or by a caller that hands
-- units back. Units that count no longer are ignored: the error is under-admission, never over-admission.
-- Each give-back is applied once, however often it is sent.
--
-- KEYS[1]  the dirty key
-- KEYS[2]  the give-back's own key, in the same slot: present once the give-back is done
-- KEYS[3+] the counters that the check consumed (without shadow limits that would have denied: they consumed nothing)
-- ARGV[1]  now_us from the reply of decide.lua: it tells which window or log entry was charged
-- ARGV[2]  the check, as decide.lua took it
-- ARGV[3]  for how long the give-back is remembered, in milliseconds
-- Reply    number of counters credited; -1 if the give-back was done before
-- If the store's clock steps back across a window's end between two charges, the credit can go to the window before.
local function credit_window(raw, shared, id, cost)
  local stored, taken, before, returned, returned_before, remote, remote_before, remote_next = stored_window(raw)
  local is_current = stored == id
  local held = is_current and taken - returned or before - returned_before
  if not is_current and stored ~= id + 1 or held < cost then
    return nil
  end
  if shared then
    if is_current then
      returned = returned + cost
    else
      returned_before = returned_before + cost
    end
  elseif is_current then
    taken = taken - cost
  else
    before = before - cost
  end
  return window_value(shared and 1 or byte(raw) % 2, stored, taken, before, returned, returned_before, remote,
    remote_before, remote_next)
end

local function credit_log(raw, shared, entered, cost, window)
  local total, first, id, taken, before, returned, returned_before, remote, remote_before, remote_next = stored_log(raw)
  local from = first
  while from < #raw do
    local at, entry_cost, after = unpack('<I7I2', raw, from)
    if at == entered and entry_cost == cost then
      local charged = floor(entered / window)
      if charged == id then
        returned = returned + cost
      elseif charged == id - 1 then
        returned_before = returned_before + cost
      end
      return log_value(shared and 1 or byte(raw) % 2, total - cost, sub(raw, first, from - 1) .. sub(raw, after),
        shared and id or 0, taken, before, returned, returned_before, remote, remote_before, remote_next)
    end
    from = after
  end
  return nil
end

local function credit_strict_log(params, state, entered, cost)
  for from = 1, #state.entries, 9 do
    local at, entry_cost = unpack('<I7I2', state.entries, from)
    if at == entered and entry_cost == cost then
      state.entries = sub(state.entries, 1, from - 1) .. sub(state.entries, from + 9)
      return rights_value(params, state)
    end
  end
  return nil
end

-- Credits a strict limit under the id that it was charged in. For windows and logs, shares older than the marker's do.
local function credit_rights(key, algorithm, packed, at, cost)
  local params = strict_params(algorithm, packed, KEYS[1], algorithm < 3)
  if not params or not call('GET', key) then
    return nil
  elseif algorithm == 2 then
    return credit_strict_log(params, rights_load(key, params), at, cost)
  elseif algorithm < 2 then
    local state = rights_load(key, params)
    local id = id_of(params, at)
    if id == state.id and state.taken >= cost then
      state.taken = state.taken - cost
    elseif id == state.id - 1 and state.taken_before >= cost then
      state.taken_before = state.taken_before - cost
    else
      return nil
    end
    return rights_value(params, state)
  end
  local state = capacity_load(key, params)
  local quanta = quanta_per_unit(params)
  state.level = math.min(state.level + cost * quanta, capacity_of(params, state) * quanta)
  return capacity_value(params, state)
end

if call('GET', KEYS[2]) then
  return -1
end
call('SET', KEYS[2], '', 'PX', tonumber(ARGV[3]))
local charged_us = tonumber(ARGV[1])
local check_cost, _, from = unpack('<dB', ARGV[2])
local credited = 0
for i = 3, #KEYS do
  local key = KEYS[i]
  local rule, a, b, c
  rule, a, b, c, from = unpack('<Bddd', ARGV[2], from)
  local packed
  if rule % 128 >= 32 then
    local size = a
    if rule % 128 >= 64 then
      size, from = unpack('<H', ARGV[2], from)
    end
    packed, from = sub(ARGV[2], from, from + size - 1), from + size
  end
  local cost = check_cost
  if rule >= 128 then
    cost, _, from = unpack('<dd', ARGV[2], from)
    rule = rule - 128
  end
  local algorithm, shared = rule % 8, rule % 32 >= 16
  local raw = call('GET', key)
  local value
  if packed and rule < 64 then
    value, raw = credit_rights(key, algorithm, packed, charged_us, cost), nil
  end
  if raw and algorithm == 0 and is_window(raw) then
    value = credit_window(raw, shared, fixed_id(b, c, charged_us), cost)
  elseif raw and algorithm == 1 and is_window(raw) then
    value = credit_window(raw, shared, floor(charged_us / (b * c)), cost)
  elseif raw and algorithm == 2 and is_log(raw) then
    value = credit_log(raw, shared, charged_us, cost, b)
  elseif raw and algorithm > 2 and is_bucket(raw) then
    local dirty, at, debt, rate, unit, size, taken, returned, born = bucket_state(raw)
    if not shared or born > 0 and taken - returned >= cost then
      if shared then
        dirty, returned = 1, returned + cost
      end
      value = bucket_value(dirty, at, math.max(0, debt - cost * unit), rate, unit, size, taken, returned, born)
    end
  end
  if value then
    credited = credited + 1
    call('SET', key, value, 'KEEPTTL')
    if shared and byte(raw) % 2 == 0 then
      mark_dirty(KEYS[1], key, now + LAZY_US, 0)
    end
  end
end
return credited
