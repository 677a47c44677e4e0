-- Decides a batch of checks, in order; each is all or nothing over its limits, and sees what earlier ones took.
--
-- KEYS[1]  the dirty key: counters of shared limits are marked beside it (see marks.lua)
-- KEYS[2+] the counters of every limit of every check, flat, in order
-- ARGV[i]  check i: cost (double), number of limits (1 byte), then for each limit 25 bytes: algorithm + 8 if shadow
--          + 16 if shared (1 byte) and three doubles
--            0 fixed_window    limit, window_us (0: calendar months), anchor_us
--            1 sliding_window  limit, ticks, tick_us
--            2 sliding_log     limit, window_us, 0
--            3 token_bucket    rate, unit, size (see buckets.lua); rate 0 is limit 0
--            4 leaky_bucket    the same
--          + 32 if strict with rights: the doubles are then the length of the terms that follow (see terms.lua), the
--          step to take (see transfers.lua; 0: decide) and nothing
--          + 64 if peers are silent: then the length (2 bytes) and the text of who is (see silent.lua)
--          + 128 if priced (see data_plane/config/load_gate.py): then two more doubles follow, what this limit costs whatever
--          the check does, and the share of what remains that the caller is told of when it is allowed
-- Reply    one string of little-endian signed 8-byte integers: now_us, then for each limit remaining, reset_us, and
--          the wait: >= 0 allowed, after that many us; -1 never; else denied, to retry after -1 - n us
-- Counters are written only by what is allowed and costs something, with a TTL that ends when the state means nothing.
local RULES = {}
local decide_beyond
local wait, left, reset, left_after, reset_after, value, ttl, due, was = {}, {}, {}, {}, {}, {}, {}, {}, {}
local reply = { pack('<i8', now) }
local written = 1
local first = 2

-- The function of an algorithm; a family's functions are made when one of them is first needed.
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

-- What checks say, by their text: most checks of a batch say the same. One limit is read out at once, the commonest
-- case; of several, each limit has four numbers in a row, after cost and count.
local read = {}

local function read_check(check)
  local cost, count, from = unpack('<dB', check)
  local said = { cost, count }
  for i = 1, count do
    local at = 4 * i
    local rule
    rule, said[at], said[at + 1], said[at + 2], from = unpack('<Bddd', check, from)
    if rule % 128 >= 32 then
      local size = said[at]
      if rule % 128 >= 64 then
        size, from = unpack('<H', check, from)
      end
      said.beyond = said.beyond or {}
      said.beyond[i], from = sub(check, from, from + size - 1), from + size
    end
    if rule >= 128 then
      said.price, said.share = said.price or {}, said.share or {}
      said.price[i], said.share[i], from = unpack('<dd', check, from)
      rule = rule - 128
    end
    said[at - 1] = rule
  end
  read[check] = said
  return said
end

local function store(key, new_value, ttl_left, due_us, was_dirty)
  call('SET', key, new_value, 'PX', ttl_left)
  if due_us then
    mark_dirty(KEYS[1], key, due_us, was_dirty)
  end
end

local function decide_all(said)
  local cost, count, price, share = said[1], said[2], said.price, said.share
  local allowed = true
  for i = 1, count do
    local at = 4 * i
    local rule = said[at - 1]
    if rule < 32 then
      wait[i], left[i], reset[i], left_after[i], reset_after[i], value[i], ttl[i], due[i], was[i] =
        (RULES[rule % 8] or rule_of(rule % 8))(KEYS[first + i - 1], rule >= 16, said[at], said[at + 1], said[at + 2],
          price and price[i] or cost)
    else
      decide_beyond = decide_beyond or beyond()
      wait[i], left[i], reset[i], left_after[i], reset_after[i], value[i], ttl[i], due[i], was[i] =
        decide_beyond(KEYS[first + i - 1], rule, said[at], said[at + 1], said[at + 2], price and price[i] or cost,
          said.beyond[i])
    end
    if wait[i] < 0 and rule % 16 < 8 then
      allowed = false
    end
  end
  for i = 1, count do
    if allowed and value[i] then
      store(KEYS[first + i - 1], value[i], ttl[i], due[i], was[i])
      left[i], reset[i] = left_after[i], reset_after[i]
    end
    if allowed and share and share[i] and left[i] > 0 then
      left[i] = floor(left[i] * share[i])
    end
    reply[written + i] = pack('<i8i8i8', left[i], reset[i], wait[i])
  end
end

-- One limit, the commonest check, without the detour over tables.
local one, decide_one, cost, shared, a, b, c
for d = 1, #ARGV do
  local check = ARGV[d]
  if #check == 34 then
    if check ~= one then
      local rule, _
      cost, _, rule, a, b, c = unpack('<dBBddd', check)
      one, shared = check, rule >= 16
      decide_one = RULES[rule % 8] or rule_of(rule % 8)
    end
    local key = KEYS[first]
    local wait_us, remaining, reset_us, remaining_after, reset_us_after, new_value, ttl_left, due_us, was_dirty =
      decide_one(key, shared, a, b, c, cost)
    written, first = written + 1, first + 1
    if new_value then
      store(key, new_value, ttl_left, due_us, was_dirty)
      reply[written] = pack('<i8i8i8', remaining_after, reset_us_after, wait_us)
    else
      reply[written] = pack('<i8i8i8', remaining, reset_us, wait_us)
    end
  else
    local said = read[check] or read_check(check)
    decide_all(said)
    written, first = written + said[2], first + said[2]
  end
end

return table.concat(reply)
