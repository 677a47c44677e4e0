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
  local oldest
  for slice = 0, slices - 1 do
    local complete_until = tonumber(call('HGET', KEYS[1], name .. '/' .. slice) or 0)
    oldest = math.min(oldest or complete_until, complete_until)
  end
  local since = 0
  if now - oldest > unreachable_after then
    call('HSETNX', KEYS[1], '~' .. name, string.format('%.0f', now))
    since = tonumber(call('HGET', KEYS[1], '~' .. name))
  else
    call('HDEL', KEYS[1], '~' .. name)
  end
  reply[#reply + 1] = name
  reply[#reply + 1] = oldest
  reply[#reply + 1] = since
end
return reply
