"""What an end client may try through any gateway: to choose its own endpoint, address, client, cost or answer."""

import pytest

from testing.node import GATEWAY_TOKEN
from tests.gateways.setting import ADDRESS_LIMIT, EXPORT_COST, LIMIT, EndClient, Site
from tests.gateways.test_gateways import assert_denied

FORGED_ADDRESSES = [
    "X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP",
    "X-Envoy-External-Address", "X-Original-Forwarded-For", "X_Forwarded_For", "X-Forwarded-For-Original",
]  # fmt: skip
EXEMPT_URI = "/health"
FORGED_URIS = [
    "X-Original-URI", "X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Uri", "X-Forwarded-Path", "X-Envoy-Original-Path",
    "X-Forwarded-Prefix", "X_Original_URI", "X_Forwarded_Uri",
]  # fmt: skip
FORGED_METHODS = ["X-Original-Method", "X-Forwarded-Method", "X-HTTP-Method-Override", "X_Forwarded_Method"]
TOLD_BY_GATEWAYS = [
    ("X-Tidegate-Client", "rich"), ("X-Tidegate-Endpoint", "health"), ("X-Tidegate-Cost", "0"),
    ("X-Tidegate-Attribute-tier", "gold"),
]  # fmt: skip
QUERIES = [
    "?deny_status=200", "?deny_status=403", "?x=1&deny_status=204", "?deny_status=403&deny_status=200",
    "?%64eny_status=403", "?deny_status=403#", "/?deny_status=403",
]  # fmt: skip


MALFORMED_ADDRESSES = [
    "", ",", "nonsense", "::1, ", "127.0.0.1:x", "1.1.1.1, 2.2.2.2, 3.3.3.3", "x" * 4000,
]  # fmt: skip
FORGED_ANSWERS = ["X-RL-Status", "X-RL-Body", "RateLimit", "X-RateLimit-Remaining", "Retry-After"]
PATHS = [
    "/health/../api/users/1", "/health/..%2fapi/users/1", "/api/users/1;/../../health", "/health%2f..%2fapi",
    "/./health/../api/users/1", "/health?/../api/users/1", "//health//..//api/users/1", "/health%00/api",
    "/health/%2e%2e/api/users/1", "\\health", "/health\\..\\api", "http://other/health/../api/users/1",
]  # fmt: skip
ODD = {
    "a long path": b"GET /%b HTTP/1.1\r\n" % (b"p" * 6_000),
    "a path of bytes": b"GET /\xff\xfe HTTP/1.1\r\n",
    "an encoded NUL": b"GET /%00 HTTP/1.1\r\n",
    "a target that is none": b"GET * HTTP/1.1\r\n",
    "an unknown method": b"FROB / HTTP/1.1\r\n",
    "a method in small letters": b"get / HTTP/1.1\r\n",
    "a long method": b"%b / HTTP/1.1\r\n" % (b"M" * 300),
    "an address of bytes": b"GET / HTTP/1.1\r\nX-Forwarded-For: \xff\xfe\r\n",
    "a long address": b"GET / HTTP/1.1\r\nX-Forwarded-For: %b\r\n" % (b"1.1.1.1, " * 600),
    "a long authorization": b"GET / HTTP/1.1\r\nAuthorization: Bearer %b\r\n" % (b"k" * 7_000),
    "an authorization of bytes": b"GET / HTTP/1.1\r\nAuthorization: Bearer \xff\r\n",
    "long headers everywhere": b"GET /%b HTTP/1.1\r\nAuthorization: Basic %b\r\nX-Forwarded-For: %b\r\n"
    % (b"p" * 7_000, b"x" * 7_000, b"1.1.1.1," * 900),
    "many headers": b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: x\r\n" % nth for nth in range(90)),
    "a body in chunks": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n",
    "an expectation": b"POST / HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n",
    "a body on GET": b"GET / HTTP/1.1\r\nContent-Length: 5\r\n",
    "a body that does not come": b"HEAD / HTTP/1.1\r\nContent-Length: 7\r\n",
    "an upgrade": b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n",
    "HTTP/1.0": b"GET / HTTP/1.0\r\n",
}


class TestForged:
    @pytest.mark.parametrize("kind", ["site", "inner_site"])
    def test_what_only_gateways_may_say(self, request: pytest.FixtureRequest, gateway_class: object, kind: str) -> None:
        """An end client cannot name its client, endpoint, cost or attributes (`X-Tidegate-*`), token or no token"""
        site: Site = request.getfixturevalue(kind)
        key, visitor = site.exhausted(), site.visitor()
        for forged in [*([one] for one in TOLD_BY_GATEWAYS), TOLD_BY_GATEWAYS]:
            assert_denied(visitor.ask(key=key, headers=forged))
        fresh = site.key()
        answer = visitor.ask(key=fresh, headers=TOLD_BY_GATEWAYS)
        assert (answer.status, answer.headers["x-ratelimit-remaining"]) == (200, str(LIMIT - 1))

    @pytest.mark.parametrize("kind", ["site", "inner_site"])
    def test_gateway_tokens(self, request: pytest.FixtureRequest, gateway_class: object, kind: str) -> None:
        """A token in an end client's request is ignored, even a valid one"""
        site: Site = request.getfixturevalue(kind)
        stolen = [("X-Tidegate-Token", GATEWAY_TOKEN), *TOLD_BY_GATEWAYS]
        assert_denied(site.visitor().ask(key=site.exhausted(), headers=stolen))
        assert site.visitor().ask(key=site.key(), headers=[("X-Tidegate-Token", "tgg_wrong")]).status == 200

    @pytest.mark.parametrize("kind", ["site", "inner_site"])
    def test_request_ids(self, request: pytest.FixtureRequest, gateway_class: object, kind: str) -> None:
        """Repeating an `X-Request-Id` does not make requests free"""
        site: Site = request.getfixturevalue(kind)
        key, visitor = site.key(), site.visitor()
        statuses = [visitor.ask(key=key, headers=[("X-Request-Id", "again")]).status for _ in range(LIMIT + 1)]
        assert statuses == [200] * LIMIT + [429]

    def test_addresses(self, site: Site) -> None:
        """An end client cannot choose its address (`X-Forwarded-For` and nine relatives)"""
        visitor = spent(site)
        for name in FORGED_ADDRESSES:
            value = "for=203.0.113.9" if name == "Forwarded" else "203.0.113.9"
            assert visitor.ask(headers=[(name, value)]).status == 429, name

    def test_malformed_addresses(self, site: Site) -> None:
        """A malformed `X-Forwarded-For` neither frees nor fails"""
        visitor, other = spent(site), site.visitor()
        for value in MALFORMED_ADDRESSES:
            assert visitor.ask(headers=[("X-Forwarded-For", value)]).status == 429, value
        assert other.ask(headers=[("X-Forwarded-For", MALFORMED_ADDRESSES[-1])]).status == 200

    @pytest.mark.parametrize("kind", ["site", "inner_site"])
    def test_endpoints(self, request: pytest.FixtureRequest, gateway_class: object, kind: str) -> None:
        """An end client cannot choose its endpoint (`X-Original-URI` and eight relatives)"""
        site: Site = request.getfixturevalue(kind)
        visitor = site.visitor()
        for name in FORGED_URIS:
            key = site.key()
            answer = visitor.ask(key=key, headers=[(name, EXEMPT_URI)])
            assert (answer.status, answer.headers.get("x-ratelimit-remaining")) == (200, str(LIMIT - 1)), name
            costly = visitor.ask("/api/exports", method="POST", key=key, headers=[(name, "/api/users/1")], body=b"")
            assert costly.headers["x-ratelimit-remaining"] == str(LIMIT - 1 - EXPORT_COST), name

    @pytest.mark.parametrize("kind", ["site", "inner_site"])
    def test_methods(self, request: pytest.FixtureRequest, gateway_class: object, kind: str) -> None:
        """An end client cannot choose its method, nor pass as a preflight"""
        site: Site = request.getfixturevalue(kind)
        visitor = site.visitor()
        for name in FORGED_METHODS:
            key = site.key()
            answer = visitor.ask(key=key, headers=[(name, "OPTIONS")])
            assert answer.headers.get("x-ratelimit-remaining") == str(LIMIT - 1), name
            costly = visitor.ask("/api/exports", method="POST", key=key, headers=[(name, "GET")], body=b"")
            assert costly.headers["x-ratelimit-remaining"] == str(LIMIT - 1 - EXPORT_COST), name

    def test_deny_status(self, site: Site) -> None:
        """An end client cannot choose the status of its denial (`deny_status` in the query)"""
        key, visitor = site.exhausted(), site.visitor()
        reached = site.upstream.requests
        for query in QUERIES:
            answer = visitor.ask("/api/users/1" + query, key=key)
            if not ("#" in query and answer.status == 400):  # some refuse a fragment as no HTTP
                assert_denied(answer)
        assert site.upstream.requests == reached

    def test_answers(self, site: Site) -> None:
        """An end client cannot write its own answer (`X-RL-Status`, `RateLimit` and others in the request)"""
        key, visitor = site.exhausted(), site.visitor()
        for name in FORGED_ANSWERS:
            assert_denied(visitor.ask(key=key, headers=[(name, "200")]))
            answer = visitor.ask(key=site.key(), headers=[(name, "12345")])
            assert answer.headers["x-ratelimit-remaining"] == str(LIMIT - 1), name
            assert "12345" not in str(answer.header_list)

    def test_connection_header(self, site: Site) -> None:
        """An end client cannot make the gateway drop what it says (`Connection: X-Forwarded-For`)"""
        visitor = spent(site)
        for dropped in ("X-Forwarded-For", "X-Forwarded-Uri", "X-Forwarded-Method", "X-Original-URI"):
            forged = [("Connection", f"close, {dropped}")]
            status = visitor.ask(headers=forged).status
            assert status in (400, 429), dropped  # some refuse it as what it is
            if status == 429:
                costly = visitor.ask("/api/exports", method="POST", key=site.key(), headers=forged, body=b"")
                assert costly.headers["x-ratelimit-remaining"] == str(LIMIT - EXPORT_COST), dropped

    def test_two_keys(self, site: Site) -> None:
        """Two different keys in one request: never counted as one client and served as another"""
        counted, other = site.exhausted(), site.key()
        for first, second in ((counted, other), (other, counted)):
            answer = site.visitor().ask(headers=[("X-API-Key", first), ("X-API-Key", second)])
            if answer.status == 200:
                seen = [value for name, value in answer.json()["header_list"] if name == "x-api-key"]
                assert seen == [other]
            else:
                assert answer.status in (401, 429)
        mixed = site.visitor().ask(key=other, headers=[("Authorization", f"Bearer {counted}")])
        if site.gateway.asks_rls:
            assert (mixed.status, mixed.json()["error"]) == (429, "malformed_request")
        else:
            assert (mixed.status, mixed.json()["error"]) == (401, "ambiguous_api_key")
            assert mixed.headers["www-authenticate"] == "ApiKey"

    def test_aliases_of_a_key(self, site: Site) -> None:
        """`X_API_Key` and `X.API.Key`, which some backends take for `X-API-Key`, do not reach the upstream"""
        key = site.key()
        for name in ("X_API_Key", "X_API-Key", "X.API.Key"):
            answer = site.visitor().ask(key=key, headers=[(name, "tg_other")])
            assert answer.headers["x-ratelimit-limit"] == str(LIMIT), name
            assert "tg_other" not in str(answer.json()["header_list"]), name

    def test_paths(self, site: Site) -> None:
        """A path that the node takes for an exempt one is an exempt one for the upstream too"""
        key, visitor = site.exhausted(), site.visitor()
        for path in PATHS:
            answer = visitor.ask(path, key=key)
            if answer.status == 200:
                assert answer.json()["path"].partition("?")[0] == EXEMPT_URI, path
            else:
                assert answer.status in (400, 403, 404, 429), path

    def test_odd_requests(self, open_site_of_gateway: Site) -> None:
        """No odd request makes the question to the node fail, so as to pass a gateway that fails open"""
        site = open_site_of_gateway
        visitor = spent(site)  # whatever becomes of the key: the address has nothing left either
        key, reached = site.exhausted(), site.upstream.requests
        for odd, begin in ODD.items():
            body = b"5\r\nhello\r\n0\r\n\r\n" if b"chunked" in begin else b"hello"
            connection = b"Upgrade" if b"Upgrade" in begin else b"close"
            rest = b"Host: x\r\nX-API-Key: %b\r\nConnection: %b\r\n\r\n" % (key.encode(), connection)
            status = visitor.send(begin + rest + body)
            assert 400 <= status < 600 or status == 0, odd
            assert site.upstream.requests == reached, odd

    def test_absolute_form(self, site: Site) -> None:
        """A target with scheme and host is no way around an endpoint's cost"""
        answer = site.visitor().ask("http://elsewhere/api/exports", method="POST", key=site.key(), body=b"")
        assert answer.status in (200, 400)
        if answer.status == 200:
            assert answer.headers["x-ratelimit-remaining"] == str(LIMIT - EXPORT_COST)


def spent(site: Site) -> EndClient:
    """An end client whose address has nothing left."""
    visitor = site.visitor()
    assert [visitor.ask().status for _ in range(ADDRESS_LIMIT)] == [200] * ADDRESS_LIMIT
    assert visitor.ask().status == 429
    return visitor
