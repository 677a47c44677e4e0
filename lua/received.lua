-- Records when counts of each peer were received, slice by slice, and tells which peers are unreachable. All processes of
-- the region share this record.
--
-- A message sent no later than the last one about a slice is a repeat. Its age is unknown, so it changes nothing.
--
-- KEYS[1]  a hash: 'peer/slice' is the instant up to which its counts are complete (microseconds), 'peer@slice' is when
--          its last message was sent (the peer's clock), '~peer' is since when the peer is unreachable. (Agents also
--          keep '=peer' there: the epoch of the peer's store that was sent everything.)
-- ARGV[1]  number of slices; ARGV[2] microseconds after which a peer counts as unreachable
-- ARGV[3]  the peer whose message was received, or ''; ARGV[4] when it sent the message (its clock, microseconds)
-- ARGV[5]  number of slices in the message; then number and age (microseconds) of each; then the names of all peers
-- Reply    number of slices that were repeats; then for each peer: its name, the instant up to which all its slices are
--          complete (0: never), since when it is unreachable (0: it is reachable)
local slices, unreachable_after, peer = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local sent, count = tonumber(ARGV[4]), tonumber(ARGV[5])
local repeated = 0
for i = 0, count - 1 do
  local slice = ARGV[6 + 2 * i]
  local field, sent_field = peer .. '/' .. slice, peer .. '@' .. slice
  local complete_until = now - tonumber(ARGV[7 + 2 * i])
  if sent <= tonumber(call('HGET', KEYS[1], sent_field) or 0) then
    repeated = repeated + 1
  else
    call('HSET', KEYS[1], sent_field, string.format('%.0f', sent))
    if complete_until > tonumber(call('HGET', KEYS[1], field) or 0) then
      call('HSET', KEYS[1], field, string.format('%.0f', complete_until))
    end
  end
end
local reply = { repeated }
for i = 6 + 2 * count, #ARGV do
  local name = ARGV[i]
  local unreachable = '~' .. name
  local fields = {}
  for slice = 0, slices - 1 do
    fields[slice + 1] = name .. '/' .. slice
  end
  fields[slices + 1] = unreachable
  local values = call('HMGET', KEYS[1], spread(fields))
  local oldest = tonumber(values[1] or 0)
  for slice = 2, slices do
    oldest = math.min(oldest, tonumber(values[slice] or 0))
  end
  local known_since = values[slices + 1]
  local since = 0
  if now - oldest > unreachable_after then
    since = tonumber(known_since or now)
    if not known_since then
      call('HSET', KEYS[1], unreachable, string.format('%.0f', now))
    end
  elseif known_since then
    call('HDEL', KEYS[1], unreachable)
  end
  reply[#reply + 1] = name
  reply[#reply + 1] = oldest
  reply[#reply + 1] = since
end
return reply
