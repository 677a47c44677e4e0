-- Lua's `struct` library as Redis bundles it (Roberto Ierusalimschy's lua-struct 0.2), in Lua: what scripts use of it.
-- Layouts are < (little-endian) or > (big-endian), then B (1 byte), H (2), d (a double), I and i (unsigned, signed) of 1
-- to 8 bytes. Each is compiled once to straight-line code. Integers of more than 53 bits are as exact as doubles.
--
-- Returns a table with pack(layout, ...) and unpack(layout, text, at), as Redis has them.
local char, byte, concat, format = string.char, string.byte, table.concat, string.format
local floor, frexp, ldexp, huge = math.floor, math.frexp, math.ldexp, math.huge

local SIZES = { B = 1, H = 2, d = 8 }

-- The fields of a layout: kind ('d', 'i' or 'u') and size in bytes of each; and whether the highest byte is first.
local function fields_of(layout)
  local fields = {}
  for kind, size in string.gmatch(string.gsub(layout, '^[<>]', ''), '([BHdiI])(%d*)') do
    fields[#fields + 1] = { kind == 'd' and 'd' or kind == 'i' and 'i' or 'u', SIZES[kind] or tonumber(size) }
  end
  return fields, string.sub(layout, 1, 1) == '>'
end

local function double_bytes(x)
  local sign = 0
  if x < 0 or (x == 0 and 1 / x < 0) then
    sign, x = 128, -x
  end
  local mantissa, exponent
  if x == 0 then
    mantissa, exponent = 0, 0
  elseif x == huge then
    mantissa, exponent = 0, 2047
  elseif x ~= x then
    mantissa, exponent = 2 ^ 51, 2047
  else
    mantissa, exponent = frexp(x)
    exponent = exponent + 1022
    if exponent > 0 then
      mantissa = (mantissa * 2 - 1) * 2 ^ 52
    else
      mantissa, exponent = ldexp(mantissa, exponent + 52), 0
    end
  end
  local low = mantissa % 2 ^ 32
  local high = (mantissa - low) / 2 ^ 32
  return char(low % 256, floor(low / 256) % 256, floor(low / 65536) % 256, floor(low / 16777216),
    high % 256, floor(high / 256) % 256, floor(high / 65536) + exponent % 16 * 16, sign + floor(exponent / 16))
end

local function double_of(a, b, c, d, e, f, g, h)
  local sign = 1
  if h > 127 then
    sign, h = -1, h - 128
  end
  local exponent = h * 16 + floor(g / 16)
  local mantissa = ((((((g % 16) * 256 + f) * 256 + e) * 256 + d) * 256 + c) * 256 + b) * 256 + a
  if exponent == 0 then
    return sign * ldexp(mantissa, -1074)
  elseif exponent == 2047 then
    return mantissa == 0 and sign * huge or 0 / 0
  end
  return sign * ldexp(mantissa + 4503599627370496, exponent - 1075)
end

local function packer_of(layout)
  local names, lines, parts, run = {}, {}, {}, {}
  local function flush()
    if #run > 0 then
      parts[#parts + 1], run = 'char(' .. concat(run, ', ') .. ')', {}
    end
  end
  local fields, is_big = fields_of(layout)
  for i, field in ipairs(fields) do
    local name = 'v' .. i
    names[i] = name
    if field[1] == 'd' then
      flush()
      parts[#parts + 1] = (is_big and 'reverse' or '') .. '(double_bytes(' .. name .. '))'
    else
      -- what C does with a number that is not whole, or too large for its field
      lines[#lines + 1] = format('if %s %% 1 ~= 0 then %s = %s < 0 and -floor(-%s) or floor(%s) end', name, name, name, name, name)
      for byte_number = 0, field[2] - 1 do
        local place = is_big and field[2] - 1 - byte_number or byte_number
        run[#run + 1] = place == 0 and name .. ' % 256' or format('floor(%s / %.0f) %% 256', name, 256 ^ place)
      end
    end
  end
  flush()
  local source = format('local char, floor, double_bytes, reverse = ...\nreturn function(%s)\n%s\nreturn %s\nend',
    concat(names, ', '), concat(lines, '\n'), concat(parts, ' .. '))
  return assert(loadstring(source))(char, floor, double_bytes, string.reverse)
end

local function unpacker_of(layout)
  local names, parts, lines = {}, {}, {}
  local fields, is_big = fields_of(layout)
  for i, field in ipairs(fields) do
    local own = {}
    for place = 1, field[2] do
      own[is_big and field[2] + 1 - place or place] = format('b%d', #names + place)
    end
    for place = 1, field[2] do
      names[#names + 1] = format('b%d', #names + 1)
    end
    if field[1] == 'd' then
      parts[i] = 'double_of(' .. concat(own, ', ') .. ')'
    else
      if field[1] == 'i' then
        local highest = own[#own]
        lines[#lines + 1] = format('if %s > 127 then %s = %s - 256 end', highest, highest, highest)
      end
      local sum = own[#own]
      for place = #own - 1, 1, -1 do
        sum = format('(%s) * 256 + %s', sum, own[place])
      end
      parts[i] = sum
    end
  end
  local source = format([[
local byte, double_of, error = ...
return function(text, at)
  at = at or 1
  local %s = byte(text, at, at + %d)
  if not %s then error('data string too short') end
  %s
  return %s, at + %d
end]], concat(names, ', '), #names - 1, names[#names], concat(lines, '\n'), concat(parts, ', '), #names)
  return assert(loadstring(source))(byte, double_of, error)
end

local packers, unpackers = {}, {}

local function pack(layout, ...)
  local packer = packers[layout]
  if not packer then
    packer = packer_of(layout)
    packers[layout] = packer
  end
  return packer(...)
end

local function unpack(layout, text, at)
  local unpacker = unpackers[layout]
  if not unpacker then
    unpacker = unpacker_of(layout)
    unpackers[layout] = unpacker
  end
  return unpacker(text, at)
end

return { pack = pack, unpack = unpack }
