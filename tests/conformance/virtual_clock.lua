-- Tests only: put in front of a script, this gives it the clock of the last ARGV (microseconds) instead of the server's,
-- and keys that expire by that clock as Redis would (in whole milliseconds, after the last one has passed). A value is
-- stored with its expiry (a double) in front. What has expired is hidden, not deleted: a clock that is then turned back
-- finds it again, whether or not anyone looked meanwhile.
local server = redis
local virtual_us = tonumber(table.remove(ARGV))
local virtual_ms = math.floor(virtual_us / 1000)

local function stored(key)
  local value = server.call('GET', key)
  if value and virtual_ms > struct.unpack('<d', value) then
    return false
  end
  return value
end

local redis = {
  call = function(command, ...)
    local key, value, option, ttl = ...
    if command == 'TIME' then
      return { string.format('%d', math.floor(virtual_us / 1000000)), string.format('%d', virtual_us % 1000000) }
    elseif command == 'GET' then
      local found = stored(key)
      return found and string.sub(found, 9)
    elseif command == 'MGET' then
      local found = {}
      for i, name in ipairs({ ... }) do
        local one = stored(name)
        found[i] = one and string.sub(one, 9)
      end
      return found
    elseif command == 'SET' then
      local expires
      if option == 'KEEPTTL' then
        expires = string.sub(stored(key), 1, 8)
      else
        ttl = tonumber(ttl)
        assert(option == 'PX' and ttl % 1 == 0 and ttl > 0 and ttl < 2 ^ 53, 'not a time to live: ' .. tostring(ttl))
        expires = struct.pack('<d', virtual_ms + ttl)
      end
      return server.call('SET', key, expires .. value)
    elseif command == 'PTTL' then
      local found = stored(key)
      return found and struct.unpack('<d', found) - virtual_ms or -2
    elseif command == 'PEXPIRE' then
      return server.call('SET', key, struct.pack('<d', virtual_ms + value) .. string.sub(stored(key), 9))
    end
    return server.call(command, ...)
  end,
}
