-- wrk -s wrk.lua URL -- PATH LINES METHOD STATUS: asks for the lines of the file LINES in turn and prints the outcome as
-- one JSON line. POST: a line is a body. GET: a line is a path that is put behind PATH, an API key, and an address, as a
-- gateway's subrequest has them. Answers with another status than STATUS are counted.

local requests, count, at, status = {}, 0, 0, nil
local threads = {}
unwanted = 0

function setup(thread)
  threads[#threads + 1] = thread
end

function init(args)
  status = tonumber(args[4])
  for line in io.lines(args[2]) do
    count = count + 1
    if args[3] == 'POST' then
      requests[count] = wrk.format('POST', args[1], { ['Content-Type'] = 'application/json' }, line)
    else
      local path, key, address = line:match('^([^\t]+)\t([^\t]+)\t([^\t]+)$')
      requests[count] = wrk.format('GET', args[1] .. path, { ['X-API-Key'] = key, ['X-Forwarded-For'] = address })
    end
  end
  -- wrk itself counts what is neither 2xx nor 3xx; looking at every answer would cost as much as sending it.
  if status == 200 then
    response = nil
  end
end

function request()
  at = at % count + 1
  return requests[at]
end

function response(code)
  if code ~= status then
    unwanted = unwanted + 1
  end
end

function done(summary, latency)
  local errors = summary.errors
  local others = errors.status
  for _, thread in ipairs(threads) do
    if thread:get('status') ~= 200 then
      others = thread:get('unwanted')
    end
  end
  io.write(string.format(
    '\nRESULT {"requests": %d, "duration_us": %d, "unwanted": %d, "socket_errors": %d, "p50_us": %d, "p99_us": %d, "p999_us": %d}\n',
    summary.requests, summary.duration, others,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
