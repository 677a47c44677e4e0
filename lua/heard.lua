-- When each peer was last heard, slice by slice, and who is silent: one truth for all nodes of the region.
--
-- A message that was sent no later than the last one about a slice is a repeat: how long ago it was sent nobody knows, so
-- it says nothing about now.
--
-- KEYS[1]  a hash: 'peer/slice' as of when (microseconds), 'peer@slice' when the last message about it was sent (the
--          peer's clock), and '~peer' since when it is silent. (Nodes keep there too, as '=peer', the life of a peer's
--          store that was told everything.)
-- ARGV[1]  how many slices there are; ARGV[2] after how many microseconds a peer is silent
-- ARGV[3]  a peer that has just been heard, or ''; ARGV[4] when it sent that (its clock, microseconds)
-- ARGV[5]  how many slices of it, then number and age (microseconds) of each; then every peer that there is
-- Reply    of how many slices it was a repeat; then for each of those peers: its name, as of when all of it is known (0:
--          never), since when it is silent (0: it is not)
local slices, stale_after, peer = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local sent, count = tonumber(ARGV[4]), tonumber(ARGV[5])
local repeated = 0
for i = 0, count - 1 do
  local slice = ARGV[6 + 2 * i]
  local field, last = peer .. '/' .. slice, peer .. '@' .. slice
  local as_of = now - tonumber(ARGV[7 + 2 * i])
  if sent <= tonumber(call('HGET', KEYS[1], last) or 0) then
    repeated = repeated + 1
  else
    call('HSET', KEYS[1], last, string.format('%.0f', sent))
    if as_of > tonumber(call('HGET', KEYS[1], field) or 0) then
      call('HSET', KEYS[1], field, string.format('%.0f', as_of))
    end
  end
end
local reply = { repeated }
for i = 6 + 2 * count, #ARGV do
  local name = ARGV[i]
  local oldest
  for slice = 0, slices - 1 do
    local as_of = tonumber(call('HGET', KEYS[1], name .. '/' .. slice) or 0)
    oldest = math.min(oldest or as_of, as_of)
  end
  local since = 0
  if now - oldest > stale_after then
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
