-- What peers took of a strict limit with an overdraft, merged as counts of shared limits are (see merge.lua): nobody goes
-- beyond the known total. Mirrors overdraft.py. Wants rights and transfers in front.
--
-- The newest that a peer told of an id stands in the book, under the name of its store's life. An earlier life of this
-- store is handed nothing back: under the ids that it may have forgotten there is no overdraft (see rights.lua).
local MOST_REMOTE = 140737488355328

-- Reply, and what all regions together took, once they meet, beside the limit.
local function merge_rights(key, algorithm, packed, dirty_key, peer, cells, from)
  local t = strict_terms(algorithm, packed, dirty_key)
  if not t or not t.overdraws then
    return '2', 0, 0
  end
  local s = rights_load(key, t)
  local ahead, news = false, false
  while from <= #cells do
    local id, taken, _
    id, taken, _, from = unpack('<i8i8i8', cells, from)
    local entries = book_load(key, t)
    local known = book_known(entries, TOLD, peer, 0, id)
    if id > s.id + 1 then
      ahead = true
    elseif id >= s.id and taken > known then
      if id == s.id then
        s.remote = math.min(s.remote + taken - known, MOST_REMOTE)
      else
        s.remote_ahead = math.min(s.remote_ahead + taken - known, MOST_REMOTE)
      end
      book_save(key, t, s.id, entries, TOLD, peer, 0, id, taken, 0)
      news = true
    end
  end
  if news then
    rights_save(key, t, s)
  end
  return ahead and '2' or news and '1' or '0', s.taken + s.remote, rights_quota(t, s.id)[3]
end
