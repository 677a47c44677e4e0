-- A region's own counts of a key, as its peers are to know them: what collect sends, and settle compares.
-- Five signed 8-byte integers: window id (a bucket's: born_us), taken, returned, then taken and returned in the window
-- before that one. All zero: nothing to tell, the state is gone or is not marked dirty. And, second, what of the limit is
-- gone in the whole world as known here, in units.
local GONE = string.rep('\0', 40)

local function own_cell(raw)
  if not raw or byte(raw) % 2 == 0 then
    return GONE, 0
  end
  local _, window, taken, before, returned, returned_before, remote = nil, 0, 0, 0, 0, 0, 0
  local known
  if is_window(raw) then
    window, taken, before, returned, returned_before, remote = stored_window(raw)
  elseif is_log(raw) then
    _, _, window, taken, before, returned, returned_before, remote = stored_log(raw)
  elseif is_bucket(raw) then
    local debt, unit
    _, _, debt, _, unit, _, taken, returned, window = bucket_state(raw)
    known = ceil(debt / unit)
  end
  return pack('<i8i8i8i8i8', window, taken, returned, before, returned_before), known or taken - returned + remote
end
