-- Asks a Tidegate node (dialect haproxy) whether a request may pass; see haproxy.cfg.
-- Sets txn.tidegate to "pass", or answers as the node did: 401, 403 or 429 with its headers and body. Without an answer it
-- leaves txn.tidegate as it is.

local ASK = assert(os.getenv("TIDEGATE_ASK"), "haproxy.cfg sets TIDEGATE_ASK before it loads this file")
local TOKEN = os.getenv("TIDEGATE_GATEWAY_TOKEN")
local DEADLINE_MS = 500
-- HAProxy's names for headers are in lower case.
local SHOWN = { "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit", "ratelimit-policy" }
local OF_DENIALS = { "retry-after", "content-type", "cache-control", "www-authenticate" }

-- Values of a header as HAProxy's Lua has them (numbered from 0), as a list.
local function values(headers, name)
    local list = {}
    local found = headers[name]
    local at = 0
    while found and found[at] do
        list[#list + 1] = found[at]
        at = at + 1
    end
    return list
end

local function question(txn)
    local headers = txn.http:req_get_headers()
    local chain = values(headers, "x-forwarded-for")
    chain[#chain + 1] = txn.sf:src()
    -- Nothing of the end client's headers but its credentials: X-Tidegate-* must never come from it.
    local ask = {
        ["x-forwarded-method"] = { txn.sf:method() },
        ["x-forwarded-uri"] = { txn.sf:pathq() },
        ["x-forwarded-for"] = { table.concat(chain, ", ") },
        ["x-api-key"] = values(headers, "x-api-key"),
        ["authorization"] = values(headers, "authorization"),
        -- To the socket, not to the node. On a kept connection HAProxy would answer a node that hangs up by hanging up
        -- itself, and the Lua client would ask again what the node may have counted.
        ["connection"] = { "close" },
    }
    if TOKEN then
        ask["x-tidegate-token"] = { TOKEN }
    end
    return ask
end

local function refuse(txn, answer)
    local reply = txn:reply({ status = answer.status, body = answer.body })
    for _, names in ipairs({ SHOWN, OF_DENIALS }) do
        for _, name in ipairs(names) do
            for _, value in ipairs(values(answer.headers, name)) do
                reply:add_header(name, value)
            end
        end
    end
    txn:done(reply)
end

local QUIET_S = 10
local next_word_s = 0

-- What becomes of the request is haproxy.cfg's to say; that nobody decided is for the log, by each thread once in a while.
local function complain(txn, status)
    local now_s = core.now().sec
    if now_s >= next_word_s then
        next_word_s = now_s + QUIET_S
        txn:Warning("tidegate: no decision from a node, status " .. status)
    end
end

core.register_action("tidegate", { "http-req" }, function(txn)
    local client = core.httpclient()
    local answer = client:get({
        url = "http://127.0.0.1/v1/authorize", dst = ASK, headers = question(txn), timeout = DEADLINE_MS,
    })
    local status = answer and answer.status or 0
    if status == 200 then
        txn:set_var("txn.tidegate", "pass")
        for _, name in ipairs(SHOWN) do
            local value = values(answer.headers, name)[1]
            if value then
                txn:set_var("txn." .. name:gsub("-", "_"), value)
            end
        end
    elseif status >= 400 and status < 500 then
        -- 401, 403, 429; or the end client's request was too odd for the node to read: no reason to let it pass.
        refuse(txn, answer)
    else
        complain(txn, status)
    end
end, 0)
