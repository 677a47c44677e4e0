-- Decides a batch of checks, in order; each is all or nothing over its limits, and sees what earlier ones took.
--
-- KEYS[1]  the dirty set, to which keys of shared limits are added when they are first consumed
-- KEYS[2+] the counters of every limit of every check, flat, in order
-- ARGV[i]  check i: cost (double), number of limits (1 byte), then for each limit 25 bytes: algorithm + 8 if shadow
--          + 16 if shared (1 byte) and three doubles
--            0 fixed_window    limit, window_us (0: calendar months), anchor_us
--            1 sliding_window  limit, ticks, tick_us
--            2 sliding_log     limit, window_us, 0
--            3 token_bucket    rate, unit, size (see buckets.lua); rate 0 is limit 0
--            4 leaky_bucket    the same
-- Reply    one string of little-endian signed 8-byte integers: now_us, then for each limit remaining, reset_us, and
--          the wait: >= 0 allowed, after that many us; -1 never; else denied, to retry after -1 - n us
-- Counters are written only by what is allowed and costs something, with a TTL that ends when the state means nothing.
local RULES = { [0] = fixed_window, sliding_window, sliding_log, token_bucket, leaky_bucket }
local wait, left, reset, left_after, reset_after, value, ttl, marks = {}, {}, {}, {}, {}, {}, {}, {}
local reply = { pack('<i8', now) }
local written = 1
local first = 2

local function store(key, new_value, ttl_ms_left, mark)
  call('SET', key, new_value, 'PX', ttl_ms_left)
  if mark then
    call('SADD', KEYS[1], key)
  end
end

-- One limit, the commonest check, without the detour over tables.
local function decide_one(key, rule, a, b, c, cost)
  local wait_us, remaining, reset_us, remaining_after, reset_us_after, new_value, ttl_ms_left, mark =
    RULES[rule % 8](key, rule >= 16, a, b, c, cost)
  if new_value then
    store(key, new_value, ttl_ms_left, mark)
    return pack('<i8i8i8', remaining_after, reset_us_after, wait_us)
  end
  return pack('<i8i8i8', remaining, reset_us, wait_us)
end

local function decide_all(check, count, cost, from)
  local allowed = true
  for i = 1, count do
    local rule, a, b, c
    rule, a, b, c, from = unpack('<Bddd', check, from)
    wait[i], left[i], reset[i], left_after[i], reset_after[i], value[i], ttl[i], marks[i] =
      RULES[rule % 8](KEYS[first + i - 1], rule >= 16, a, b, c, cost)
    if wait[i] < 0 and rule % 16 < 8 then
      allowed = false
    end
  end
  for i = 1, count do
    if allowed and value[i] then
      store(KEYS[first + i - 1], value[i], ttl[i], marks[i])
      reply[written + i] = pack('<i8i8i8', left_after[i], reset_after[i], wait[i])
    else
      reply[written + i] = pack('<i8i8i8', left[i], reset[i], wait[i])
    end
  end
end

for d = 1, #ARGV do
  local check = ARGV[d]
  if #check == 34 then
    local cost, _, rule, a, b, c = unpack('<dBBddd', check)
    reply[written + 1] = decide_one(KEYS[first], rule, a, b, c, cost)
    written, first = written + 1, first + 1
  else
    local cost, count, from = unpack('<dB', check)
    decide_all(check, count, cost, from)
    written, first = written + count, first + count
  end
end

return table.concat(reply)
