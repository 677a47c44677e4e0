-- Every script begins with this part: short names for frequent calls, and the layouts of stored state.
--
-- Numbers are doubles. tidegate/contract/limits.py keeps every product of a count and a time below 2^50, so all
-- arithmetic here is on exact integers. For integers below 2^53, a % b and floor(a / b) are exact: the quotient's
-- rounding error is smaller than the distance 1/b to the next multiple.
--
-- A counter's value is one string. Its first byte is the layout; bit 0 of it is "dirty" (see marks.lua):
--   0x10 windows, narrow   id, taken, taken before                                       4 bytes each
--   0x12 windows, wide     the same                                                      6 bytes each
--   0x14 windows, shared   id, taken, taken before, returned, returned before,
--                          remote, remote before, remote next                            4 bytes each
--   0x16 the same, wide                                                                  6 bytes each
--   0x22 bucket            at_us, debt (7 bytes each), rate, unit, size                  6 bytes each
--   0x24 bucket, shared    as 0x22, then taken, returned (6 bytes each), born_us (7)
--   0x2a bucket, usual     full_at_us from 2023 on (6), unit (4), size (2); its rate is 1, as that of round limits
--   0x30 log               total (4 bytes), then entries of time_us (7), cost (2), oldest first
--   0x32 log, shared       total (4), the counts of 0x16, then the entries
--   0x34 log, short        total (2), then the entries
--   0x40, 0x42, 0x44       strict limits: a window, a log (rights.lua), a bucket (borrowed_capacity.lua)
--   0x48, 0x50, 0x53       beside a counter: transfers (transfers.lua), counts of peers (receive.lua), reserves
--                          (unreachable.lua)
-- Read, and written no longer since 2026-12:
--   0x20, 0x26, 0x28       buckets (buckets.lua)
--   0x52                   reserves (unreachable.lua)
--   0x44, 0x45             88 bytes long: windows with an overdraft (rights.lua)
-- In Valkey 9 a value of up to 13 bytes shares one allocation of 64 bytes with a key of 20 bytes.
-- Layouts are added, never changed. A value with an unknown first byte counts as absent.
local call = redis.call
local byte, sub = string.byte, string.sub
-- Lua's own unpack: passes the members of a table as arguments.
local spread = unpack
local pack, unpack = struct.pack, struct.unpack
local floor, ceil = math.floor, math.ceil

local time = call('TIME')
local now = time[1] * 1000000 + time[2]

-- How long the state of a shared limit outlives its window, so that late counts can still be merged.
local SLACK_US = 5000000

-- A limit's verdict is one number: >= 0 allowed, after that many microseconds (a queue's turn); NEVER; or below that,
-- denied with a wait of -1 - n microseconds.
local NEVER = -1

-- Whether a value is a counter of this family.
local function is_window(raw)
  local kind = byte(raw) or 0
  return kind >= 16 and kind < 24
end

local function is_log(raw)
  local kind = byte(raw) or 0
  return kind >= 48 and kind < 54
end

local function is_bucket(raw)
  local kind = byte(raw) or 0
  return kind >= 32 and kind < 44
end

local function ttl_ms(us)
  return ceil(us / 1000)
end
