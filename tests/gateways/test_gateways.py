"""One suite over all gateways, each with the example that docs/gateways/ shows: what a gateway must do.

The first line of each docstring is a row of the table in docs/gateways/README.md.
"""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from testing.gateway import BUDGET_S, RATE_LIMIT_HEADERS
from tests.gateways.setting import ADDRESS_LIMIT, EXPORT_COST, LIMIT, SUSPENDED, Answer, EndClient, Site

FAULTS = ["gone", "silent", "broken"]
SLOWEST_S = 4.0 * BUDGET_S
"""No fault of the node may hold an end client up longer."""
THREADS = 4


class TestGateway:
    def test_allowed(self, site: Site) -> None:
        """Allowed requests pass, with all rate limit headers on the answer"""
        answer = site.visitor().ask("/api/users/1?x=1", key=site.key())
        assert answer.status == 200
        assert answer.json()["path"] == "/api/users/1?x=1"
        headers = answer.headers
        assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == (str(LIMIT), str(LIMIT - 1))
        assert headers["ratelimit-policy"] == f'"hourly";q={LIMIT};w=3600'
        assert headers["ratelimit"].startswith(f'"hourly";r={LIMIT - 1};t=')
        assert time.time() < int(headers["x-ratelimit-reset"]) <= time.time() + 7200

    def test_denied(self, site: Site) -> None:
        """Denied requests end with 429, all headers and the problem as the body"""
        key, visitor = site.exhausted(), site.visitor()
        reached = site.upstream.requests
        answer = visitor.ask(key=key)
        assert_denied(answer)
        assert answer.json()["violated-policies"] == ["hourly"]
        assert answer.headers["x-ratelimit-limit"] == str(LIMIT)
        assert site.upstream.requests == reached
        assert visitor.ask("/api/users/2", method="POST", key=key, body=b"x" * 100).status == 429
        assert visitor.ask(method="HEAD", key=key).status == 429

    def test_keys_are_subjects(self, site: Site) -> None:
        """A limit by key counts each key for itself, from `X-API-Key` or `Authorization: Bearer`"""
        key, visitor = site.exhausted(), site.visitor()
        assert visitor.ask(headers=[("Authorization", f"Bearer {key}")]).status == 429
        assert visitor.ask(key=site.key()).status == 200

    def test_addresses_are_subjects(self, site: Site) -> None:
        """A limit by address counts the true address of the end client"""
        visitor = site.visitor()
        answers = [visitor.ask(), visitor.ask(key="tg_unknown"), visitor.ask(key="tg_other"), visitor.ask()]
        assert [answer.status for answer in answers] == [200] * ADDRESS_LIMIT + [429]
        assert answers[-1].json()["violated-policies"] == ["per-ip"]
        assert site.visitor().ask().status == 200

    def test_method_and_path_find_the_endpoint(self, site: Site) -> None:
        """The node learns the true method and path: costs and exemptions of endpoints hold"""
        key, visitor = site.key(), site.visitor()
        remaining = visitor.ask("/api/exports?x=1", method="POST", key=key, body=b"").headers["x-ratelimit-remaining"]
        assert remaining == str(LIMIT - EXPORT_COST)
        exempt = visitor.ask("/health", key=key)
        assert (exempt.status, set(RATE_LIMIT_HEADERS) & set(exempt.headers)) == (200, set())
        assert visitor.ask(key=key).headers["x-ratelimit-remaining"] == str(LIMIT - EXPORT_COST - 1)

    def test_bodies_stay_whole(self, site: Site) -> None:
        """Request bodies reach the upstream whole"""
        body = bytes(range(256)) * 2_000
        told = site.visitor().ask("/upload", method="POST", key=site.key(), body=body).json()
        assert (told["body_bytes"], told["body_sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
        head = f"POST /upload HTTP/1.1\r\nHost: x\r\nX-API-Key: {site.key()}\r\nConnection: close\r\n"
        chunks = b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        assert site.visitor().send(head.encode() + chunks) == 200

    def test_refusals(self, site: Site) -> None:
        """Suspended clients get the node's 403 with its reason"""
        answer = site.visitor().ask(key=SUSPENDED)
        status = 429 if site.gateway.asks_rls else 403
        assert (answer.status, answer.json()["error"]) == (status, "client_suspended")
        assert answer.headers["content-type"] == "application/problem+json"

    def test_what_the_upstream_says_stands(self, site: Site) -> None:
        """What the upstream answers is left alone, 401, 403, 429 and 5xx included"""
        visitor = site.visitor()
        for status in (401, 403, 404, 429, 500, 503):
            reached = site.upstream.requests
            answer = visitor.ask(key=site.key(), headers=[("X-Answer", str(status))])
            assert (answer.status, answer.json()["path"]) == (status, "/api/users/1")
            assert answer.headers["x-ratelimit-remaining"] == str(LIMIT - 1)
            assert site.upstream.requests == reached + 1

    def test_connections_to_the_node_are_kept(self, site: Site) -> None:
        """Connections to the node are kept and used again"""
        visitor = site.visitor()
        assert visitor.ask(key="tg_rich").status == 200
        before = site.proxy.accepted
        with ThreadPoolExecutor(THREADS) as pool:
            answers = list(pool.map(lambda _nth: visitor.ask(key="tg_rich").status, range(20 * THREADS)))
        assert answers == [200] * (20 * THREADS)
        # Some keep connections per thread, and open one more for a moment.
        assert site.proxy.accepted - before <= 4 * THREADS

    @pytest.mark.parametrize("fault", FAULTS)
    def test_fail_closed(self, site: Site, fault: str) -> None:
        """Fail-closed: without the node (gone, not answering, or answering 500) nothing passes"""
        reached, visitor = site.upstream.requests, site.visitor()
        with site.node_is(fault):
            answer, took_s = timed(visitor, site.key())
        assert answer.status in site.gateway.closed_statuses
        assert took_s < SLOWEST_S
        assert site.upstream.requests == reached
        assert visitor.ask(key=site.key()).status == 200, "and it passes again when the node is back"

    @pytest.mark.parametrize("fault", FAULTS)
    def test_fail_open(self, open_site_of_gateway: Site, fault: str) -> None:
        """Fail-open: without the node (gone, not answering, or answering 500) everything passes, once and whole"""
        site = open_site_of_gateway
        reached, visitor, key = site.upstream.requests, site.visitor(), site.exhausted()
        reached = site.upstream.requests
        with site.node_is(fault):
            answer, took_s = timed(visitor, key)
            uploaded = visitor.ask("/upload", method="POST", key=key, body=b"x" * 1000)
            forged = visitor.ask(headers=[("X-RateLimit-Remaining", "7"), ("X-Answer", "500")])
        assert (answer.status, answer.json()["path"]) == (200, "/api/users/1")
        assert set(RATE_LIMIT_HEADERS) & set(answer.headers) == set(), "nothing is known of the limit"
        assert (uploaded.status, uploaded.json()["body_bytes"]) == (200, 1000)
        assert (forged.status, "x-ratelimit-remaining" in forged.headers) == (500, False)
        assert took_s < SLOWEST_S
        assert site.upstream.requests == reached + 3
        assert_denied(visitor.ask(key=key))

    def test_two_nodes(self, inner_site: Site) -> None:
        """Of two nodes, one that is gone costs no request"""
        visitor = inner_site.visitor()
        for _ in range(12):
            answer = visitor.ask(key="tg_rich")
            assert (answer.status, "ratelimit" in answer.headers) == (200, True)

    def test_trusted_hops(self, inner_site: Site) -> None:
        """Behind another proxy the node counts the address that this proxy saw (`TIDEGATE_TRUSTED_HOPS`)"""
        edge = inner_site.visitor()
        one, other = (inner_site.visitor().address for _ in range(2))

        def through_the_edge(address: str, forged: str) -> int:
            return edge.ask(headers=[("X-Forwarded-For", f"{forged}, {address}")]).status

        statuses = [through_the_edge(one, f"203.0.113.{nth}") for nth in range(ADDRESS_LIMIT + 1)]
        assert statuses == [200] * ADDRESS_LIMIT + [429]
        assert through_the_edge(other, "203.0.113.1") == 200

    def test_gateway_token(self, inner_site: Site) -> None:
        """A gateway token opens a node that requires one"""
        key, visitor = inner_site.key(), inner_site.visitor()
        assert visitor.ask(key=key).headers["x-ratelimit-remaining"] == str(LIMIT - 1)
        assert_denied(visitor.ask(key=inner_site.exhausted()))


def timed(visitor: EndClient, key: str) -> tuple[Answer, float]:
    """An answer, and the seconds that it took."""
    began = time.monotonic()
    return visitor.ask(key=key), time.monotonic() - began


def assert_denied(answer: Answer) -> None:
    """A whole denial as the contract has it: status, headers, body."""
    assert answer.status == 429, answer
    headers = answer.headers
    assert set(RATE_LIMIT_HEADERS) <= set(headers), headers
    assert headers["content-type"] == "application/problem+json"
    assert headers["cache-control"] == "no-store"
    assert headers["x-ratelimit-remaining"] == "0"
    problem = answer.json()
    assert (problem["status"], problem["error"]) == (429, "rate_limit_exceeded")
    assert int(headers["retry-after"]) == problem["retry_after"] > 0
    assert {"client", "plan", "revision", "region"}.isdisjoint(problem), "the body reaches end users"
