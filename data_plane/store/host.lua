-- Runs a script as Redis does: with KEYS, ARGV and redis.call. It is handed two functions of Python: execute(command, ...)
-- and set_all(key, value, ttl_ms, ...).
--
-- Calling Python takes longer than most of what a script does. So TIME is answered here, GET as far as values came along,
-- and what is SET with PX is kept until the script ends, or until it calls another command.
--
-- Returns run(script, seconds, microseconds, number of keys, keys and values and arguments in this order), where a value
-- is a string, false if there is none, or nil if only the command can tell; run_many, with lists of these instead; and
-- hand_back(), to be called after an error.
local execute, set_all = ...
local spread = unpack
local MANY = 900
local time, values
local kept, count = {}, 0

local function hand_back()
  local last = count
  count = 0
  for first = 1, last, MANY do
    set_all(spread(kept, first, math.min(first + MANY - 1, last)))
  end
end

local function call(name, ...)
  local key, value, option, ttl = ...
  if name == 'GET' and values[key] ~= nil then
    return values[key]
  elseif name == 'TIME' then
    return time
  elseif name == 'SET' and option == 'PX' and select('#', ...) == 4 and type(value) == 'string' and tonumber(ttl) > 0 then
    values[key] = value
    kept[count + 1], kept[count + 2], kept[count + 3] = key, value, ttl
    count = count + 3
    return 'OK'
  end
  hand_back()
  values = {}
  return execute(name, ...)
end

local function run_many(script, seconds, microseconds, keys, found, arguments)
  time, values = { seconds, microseconds }, {}
  for i = 1, #keys do
    values[keys[i]] = found[i]
  end
  KEYS, ARGV = keys, arguments
  local reply = script()
  hand_back()
  return reply
end

local function run(script, seconds, microseconds, number, ...)
  local keys, found, arguments = { ... }, {}, {}
  for i = 2 * number + 1, select('#', ...) do
    arguments[i - 2 * number], keys[i] = keys[i], nil
  end
  for i = 1, number do
    found[i], keys[number + i] = keys[number + i], nil
  end
  return run_many(script, seconds, microseconds, keys, found, arguments)
end

redis = {
  call = call,
  error_reply = function(message)
    return { err = message }
  end,
}
return run, run_many, hand_back
