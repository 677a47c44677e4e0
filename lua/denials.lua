-- Keeps denials, by caller: the latest ones, and the first of each minute, which go further back.
--
-- KEYS[1]  callers of one kind, by when they were last denied; then two a caller: its latest denials, those by minute
-- ARGV[1]  at most so many callers; ARGV[2] latest denials a caller; ARGV[3] by minute; ARGV[4] kept for so many ms
-- ARGV[5]  what the keys of a caller begin with; what they end with is in ARGV[6] (latest) and ARGV[7] (by minute)
-- ARGV[8]  and on, a caller: its name, when it was denied (epoch ms), how many denials follow, those, oldest first
-- Reply    how many callers gave way: those whose last denial is longest ago
-- All keys are in one slot, also those of callers that give way.
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
  for one = at + 3, at + 2 + count do
    redis.call('LPUSH', latest, ARGV[one])
  end
  redis.call('LTRIM', latest, 0, ARGV[2] - 1)
  redis.call('PEXPIRE', latest, ARGV[4])
  redis.call('ZADD', index, math.max(before_ms, denied_ms), name)
  at, caller = at + 3 + count, caller + 2
end
redis.call('PEXPIRE', index, ARGV[4])
local too_many = redis.call('ZCARD', index) - ARGV[1]
if too_many <= 0 then
  return 0
end
local gone = redis.call('ZPOPMIN', index, too_many)
for number = 1, #gone, 2 do
  local of = ARGV[5] .. gone[number]
  redis.call('DEL', of .. ARGV[6], of .. ARGV[7])
end
return #gone / 2
