-- Stores denials by caller: the latest ones, and the first of each minute for a longer history.
--
-- KEYS[1]  index of callers of one kind by their last denial; then two keys a caller: latest denials, denials by minute
-- ARGV[1]  maximum callers; ARGV[2] maximum latest denials a caller; ARGV[3] maximum by minute; ARGV[4] TTL in ms
-- ARGV[5]  prefix of a caller's keys; ARGV[6] suffix of its latest denials; ARGV[7] suffix of those by minute
-- ARGV[8+] for each caller: its name, its last denial (epoch ms), number of denials, the denials, oldest first
-- Reply    number of callers evicted: those whose last denial is longest ago
-- All keys are in one slot, also those of evicted callers.
local index, at, caller = KEYS[1], 8, 0
while at <= #ARGV do
  local name, denied_ms, count = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local latest, by_minute = KEYS[2 + caller], KEYS[3 + caller]
  local before_ms = tonumber(redis.call('ZSCORE', index, name) or 0)
  if math.floor(before_ms / 60000) < math.floor(denied_ms / 60000) then
    redis.call('LPUSH', by_minute, ARGV[at + 3])
    redis.call('LTRIM', by_minute, 0, ARGV[3] - 1)
    redis.call('PEXPIRE', by_minute, ARGV[4])
  end
  for denial = at + 3, at + 2 + count do
    redis.call('LPUSH', latest, ARGV[denial])
  end
  redis.call('LTRIM', latest, 0, ARGV[2] - 1)
  redis.call('PEXPIRE', latest, ARGV[4])
  redis.call('ZADD', index, math.max(before_ms, denied_ms), name)
  at, caller = at + 3 + count, caller + 2
end
redis.call('PEXPIRE', index, ARGV[4])
local surplus = redis.call('ZCARD', index) - ARGV[1]
if surplus <= 0 then
  return 0
end
local evicted = redis.call('ZPOPMIN', index, surplus)
for number = 1, #evicted, 2 do
  local prefix = ARGV[5] .. evicted[number]
  redis.call('DEL', prefix .. ARGV[6], prefix .. ARGV[7])
end
return #evicted / 2
