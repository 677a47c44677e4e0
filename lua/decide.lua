-- Decides a batch of checks in order. Each check is all or nothing over its limits and sees what earlier checks took.
--
-- KEYS[1]  the dirty key: counters of shared limits are marked beside it (see marks.lua)
-- KEYS[2+] the counters of every limit of every check, flat, in order
-- ARGV[i]  check i: cost (double), number of limits (1 byte), then 25 bytes for each limit: algorithm + flags (1 byte),
--          then three doubles
--            0 fixed_window    limit, window_us (0: calendar months), anchor_us
--            1 sliding_window  limit, ticks, tick_us
--            2 sliding_log     limit, window_us, 0
--            3 token_bucket    rate, unit, size (see buckets.lua); rate 0 means limit 0
--            4 leaky_bucket    as token_bucket
--          Flags:
--          + 8   shadow
--          + 16  shared
--          + 32  strict with rights: the doubles are the length of the strict parameters that follow (see
--                strict_parameters.lua), the step to take (see transfers.lua; 0: decide) and 0
--          + 64  peers are unreachable: the rule is followed by a length (2 bytes) and the peers (see unreachable.lua)
--          + 128 priced (see data_plane/config/load_gate.py): two more doubles follow, the cost under this limit instead
--                of the check's, and the share of the remaining units that an allowed caller is shown
-- Reply    one string of little-endian signed 8-byte integers: now_us, then for each limit remaining, reset_us and wait:
--          >= 0 allowed, after that many microseconds; -1 never; else denied, to retry after -1 - n microseconds
-- An algorithm returns its wait, what is left and the time until the reset as things stand, and both as they are once the
-- check is admitted; where it may be, also the value to store, its TTL in milliseconds and, of a shared counter, when its
-- mark is due and whether it was marked before.
-- Only an allowed check with a cost writes counters. Their TTL ends when the state stops to matter.
local RULES = {}
local decide_extended
local wait, left, reset, left_after, reset_after, value, ttl, due, was_dirty = {}, {}, {}, {}, {}, {}, {}, {}, {}
local reply = { pack('<i8', now) }
local written = 1
local first = 2

-- Returns the function of an algorithm. A family's functions are made when one of them is first needed.
local function rule_of(algorithm)
  if algorithm < 3 then
    local weigh, roll
    RULES[0], RULES[1], weigh, roll = windows()
    RULES[2] = log(weigh, roll)
  else
    RULES[3], RULES[4] = buckets()
  end
  return RULES[algorithm]
end

-- Parsed checks by their text, as most checks of a batch are equal: { cost, count, then four numbers for each limit }.
-- Checks with one limit are parsed in the main loop instead.
local parsed_checks = {}

local function parse_check(check)
  local cost, count, from = unpack('<dB', check)
  local parsed = { cost, count }
  for i = 1, count do
    local at = 4 * i
    local rule
    rule, parsed[at], parsed[at + 1], parsed[at + 2], from = unpack('<Bddd', check, from)
    if rule % 128 >= 32 then
      local size = parsed[at]
      if rule % 128 >= 64 then
        size, from = unpack('<H', check, from)
      end
      parsed.extended = parsed.extended or {}
      parsed.extended[i], from = sub(check, from, from + size - 1), from + size
    end
    if rule >= 128 then
      parsed.price, parsed.share = parsed.price or {}, parsed.share or {}
      parsed.price[i], parsed.share[i], from = unpack('<dd', check, from)
      rule = rule - 128
    end
    parsed[at - 1] = rule
  end
  parsed_checks[check] = parsed
  return parsed
end

local function store(key, new_value, ttl_left, due_us, was_dirty)
  call('SET', key, new_value, 'PX', ttl_left)
  if due_us then
    mark_dirty(KEYS[1], key, due_us, was_dirty)
  end
end

local function decide_all(parsed)
  local cost, count, price, share = parsed[1], parsed[2], parsed.price, parsed.share
  local allowed = true
  for i = 1, count do
    local at = 4 * i
    local rule = parsed[at - 1]
    if rule < 32 then
      wait[i], left[i], reset[i], left_after[i], reset_after[i], value[i], ttl[i], due[i], was_dirty[i] =
        (RULES[rule % 8] or rule_of(rule % 8))(KEYS[first + i - 1], rule >= 16, parsed[at], parsed[at + 1],
          parsed[at + 2], price and price[i] or cost)
    else
      decide_extended = decide_extended or extended()
      wait[i], left[i], reset[i], left_after[i], reset_after[i], value[i], ttl[i], due[i], was_dirty[i] =
        decide_extended(KEYS[first + i - 1], rule, parsed[at], parsed[at + 1], parsed[at + 2], price and price[i] or cost,
          parsed.extended[i])
    end
    if wait[i] < 0 and rule % 16 < 8 then
      allowed = false
    end
  end
  for i = 1, count do
    if allowed and value[i] then
      store(KEYS[first + i - 1], value[i], ttl[i], due[i], was_dirty[i])
      left[i], reset[i] = left_after[i], reset_after[i]
    end
    if allowed and share and share[i] and left[i] > 0 then
      left[i] = floor(left[i] * share[i])
    end
    reply[written + i] = pack('<i8i8i8', left[i], reset[i], wait[i])
  end
end

-- The main loop. A check with one limit, the commonest, is decided without tables.
local last_check, decide_last, cost, shared, a, b, c
for d = 1, #ARGV do
  local check = ARGV[d]
  if #check == 34 then
    if check ~= last_check then
      local rule, _
      cost, _, rule, a, b, c = unpack('<dBBddd', check)
      last_check, shared = check, rule >= 16
      decide_last = RULES[rule % 8] or rule_of(rule % 8)
    end
    local key = KEYS[first]
    local wait_us, remaining, reset_us, remaining_after, reset_us_after, new_value, ttl_left, due_us, was_dirty =
      decide_last(key, shared, a, b, c, cost)
    written, first = written + 1, first + 1
    if new_value then
      store(key, new_value, ttl_left, due_us, was_dirty)
      reply[written] = pack('<i8i8i8', remaining_after, reset_us_after, wait_us)
    else
      reply[written] = pack('<i8i8i8', remaining, reset_us, wait_us)
    end
  else
    local parsed = parsed_checks[check] or parse_check(check)
    decide_all(parsed)
    written, first = written + parsed[2], first + parsed[2]
  end
end

return table.concat(reply)
