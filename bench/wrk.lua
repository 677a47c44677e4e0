-- wrk -s wrk.lua URL -- PATH BODIES: POSTs the lines of the file BODIES in turn and prints the outcome as one JSON line.

local requests, count, at = {}, 0, 0

function init(args)
  wrk.headers["Content-Type"] = "application/json"
  for body in io.lines(args[2]) do
    count = count + 1
    requests[count] = wrk.format("POST", args[1], nil, body)
  end
end

function request()
  at = at % count + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "duration_us": %d, "refused": %d, "socket_errors": %d, "p50_us": %d, "p99_us": %d, "p999_us": %d}\n',
    summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
