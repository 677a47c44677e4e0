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
local first = 1

for d = 1, #ARGV do
  local check = ARGV[d]
  local cost, count, from = unpack('<dB', check)
  local allowed = true
  for i = 1, count do
    local rule, a, b, c
    rule, a, b, c, from = unpack('<Bddd', check, from)
    local shared = rule >= 16
    if shared then
      rule = rule - 16
    end
    local enforced = rule < 8
    if not enforced then
      rule = rule - 8
    end
    wait[i], left[i], reset[i], left_after[i], reset_after[i], value[i], ttl[i], marks[i] =
      RULES[rule](KEYS[first + i], shared, a, b, c, cost)
    if enforced and wait[i] < 0 then
      allowed = false
    end
  end
  for i = 1, count do
    written = written + 1
    if allowed and value[i] then
      local key = KEYS[first + i]
      call('SET', key, value[i], 'PX', ttl[i])
      if marks[i] then
        call('SADD', KEYS[1], key)
      end
      reply[written] = pack('<i8i8i8', left_after[i], reset_after[i], wait[i])
    else
      reply[written] = pack('<i8i8i8', left[i], reset[i], wait[i])
    end
  end
  first = first + count
end

return table.concat(reply)
