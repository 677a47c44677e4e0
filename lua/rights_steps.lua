-- One step on one strict counter of the region, for messages between regions (decisions travel in batches: decide.lua).
--
-- KEYS[1] the counter, KEYS[2] its book, KEYS[3] the marker of the slot group, all in one slot
-- ARGV[1] the node's view: incarnation, revision (8 each, doubles)
-- ARGV[2] terms, packed (see rights.lua)
-- ARGV[3] what to do, then its arguments:
--   decide   cost                                              -> allowed (0/1), id, remaining, low (0/1)
--   give     peer, incarnation, id, to_incarnation, known      -> total, have, is_empty (0/1)
--   receive  peer, incarnation, id, total                      -> gained, have, low (0/1); nothing for a bygone id
--   basis                                                      -> id, have, rate, low (0/1), then peer, incarnation and
--                                                                 units for each gift known under that id
-- Reply: a list; or one word that says why nothing was done: no_marker, other_incarnation, node_outdated.
-- The marker's value: incarnation, revision (8 each, doubles), then birth and run id, which scripts do not read.
local function flag(value)
  return value and 1 or 0
end

local marker = call('GET', KEYS[3])
if not marker then
  return 'no_marker'
end
local marked_incarnation, marked_revision = unpack('<dd', marker)
local view_incarnation, view_revision = unpack('<dd', ARGV[1])
if marked_incarnation ~= view_incarnation then
  return 'other_incarnation'
elseif marked_revision > view_revision then
  return 'node_outdated'
end

local key, book_key, terms, step = KEYS[1], KEYS[2], rights_terms(ARGV[2]), ARGV[3]
if step == 'decide' then
  local allowed, id, remaining, low, value, ttl = rights_decide(key, terms, tonumber(ARGV[4]))
  if value then
    call('SET', key, value, 'PX', ttl)
  end
  return { flag(allowed), id, remaining, flag(low) }
elseif step == 'give' then
  local total, have, is_empty = rights_give(key, book_key, terms, ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]),
    tonumber(ARGV[7]), tonumber(ARGV[8]))
  return { total, have, flag(is_empty) }
elseif step == 'receive' then
  local gained, have, low =
    rights_receive(key, book_key, terms, ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]))
  return gained and { gained, have, flag(low) } or {}
end
local state = rights_load(key, terms)
local have = rights_spare(terms, state)
local reply = { state.id, math.max(0, have), rights_demand(terms, state), flag(have < rights_low_water(terms, state, 1)) }
for _, entry in ipairs(book_load(book_key, terms)) do
  if entry[1] == 2 and entry[4] == state.id then
    reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = entry[2], entry[3], entry[5]
  end
end
return reply
