-- Tells the node what became of each request that was forwarded: its status, and the milliseconds until the backend began
-- to answer. Sent on without waiting, four times a second at most; each of Envoy's workers keeps a batch of its own.
local EVERY_MS = 250
local OLD_MS = 1000 -- what could not be told for so long is no news
local MOST, MOST_BYTES = 1000, 32768 -- in a batch: what the node takes at once
local TOKEN = os.getenv("TIDEGATE_GATEWAY_TOKEN")
local ABOUT = "tidegate.report"

local batch, bytes, sent_ms, begun_ms = {}, 0, 0, 0

local function quoted(text)
  return '"' .. text:gsub('[%c"\\]', function(one) return string.format("\\u%04x", one:byte()) end) .. '"'
end

local function send(handle, now_ms)
  local headers = {
    [":method"] = "POST", [":path"] = "/v1/report", [":authority"] = "tidegate", ["content-type"] = "application/json",
    ["x-tidegate-token"] = TOKEN,
  }
  handle:httpCall("tidegate", headers, '{"reports":[' .. table.concat(batch, ",") .. "]}", 250, true)
  batch, bytes, sent_ms = {}, 0, now_ms
end

function envoy_on_request(handle)
  local about = handle:streamInfo():dynamicMetadata()
  about:set(ABOUT, "method", handle:headers():get(":method"))
  about:set(ABOUT, "path", handle:headers():get(":path"):match("^[^?]*"))
  about:set(ABOUT, "asked_ms", handle:timestamp())
end

function envoy_on_response(handle)
  local about = handle:streamInfo():dynamicMetadata():get(ABOUT)
  if about == nil then -- denied: it never came past the filter before this one
    return
  end
  local now_ms = handle:timestamp()
  if now_ms - begun_ms > OLD_MS then
    batch, bytes = {}, 0
  end
  if #batch == 0 then
    begun_ms = now_ms
  end
  local report = string.format(
    '{"status":%d,"latency_ms":%d,"method":%s,"path":%s}',
    tonumber(handle:headers():get(":status")), math.max(0, now_ms - about.asked_ms), quoted(about.method), quoted(about.path)
  )
  if #batch < MOST and bytes + #report < MOST_BYTES then
    batch[#batch + 1], bytes = report, bytes + #report + 1
  end
  if now_ms - sent_ms >= EVERY_MS then
    send(handle, now_ms)
  end
end
