"""What an end client may try in front of an application: to choose its own endpoint, address, client, cost or answer.

The rows of ``tests/gateways/test_forged.py`` that concern middlewares, and what only those have: paths that a framework
decodes before it routes by them.
"""

import asyncio
from collections.abc import Callable, Iterator

import httpx
import pytest
from flask import Flask, jsonify
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from testing.node import key_of, rule
from tests.clients.conftest import config
from tests.clients.test_frameworks import options
from tests.gateways.test_forged import FORGED_ADDRESSES, FORGED_METHODS, FORGED_URIS, QUERIES, TOLD_BY_GATEWAYS
from tidegate.contract.config import Plan
from tidegate_client import AsyncTidegate, Tidegate, asgi, wsgi

LIMIT, ADDRESS_LIMIT, EXPORT_COST = 5, 3, 5
METHODS = ["GET", "POST", "OPTIONS"]
Ask = Callable[..., tuple[int, httpx.Headers]]


def starlette_asker(limiter: AsyncTidegate, loop: asyncio.AbstractEventLoop) -> Ask:
    async def page(request):
        return JSONResponse({})

    app = asgi.TidegateMiddleware(Starlette(routes=[Route("/{rest:path}", page, methods=METHODS)]), limiter)

    async def ask(method, path, headers, address):
        transport = httpx.ASGITransport(app, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            answer = await client.request(method, path, headers=headers)
            return answer.status_code, answer.headers

    return lambda *asked: loop.run_until_complete(ask(*asked))


def flask_asker(limiter: Tidegate) -> Ask:
    app = Flask("app")
    wsgi.TidegateFlask(app, limiter)
    app.add_url_rule("/<path:rest>", view_func=lambda rest: jsonify(rest=rest), methods=METHODS)

    def ask(method, path, headers, address):
        answer = app.test_client().open(
            path, method=method, headers=headers, environ_overrides={"REMOTE_ADDR": address}
        )
        return answer.status_code, httpx.Headers(list(answer.headers))

    return ask


class Visitor:
    """An end client: ``ask`` gives the status and what remains (``None``: no limit counted)."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def ask(
        self, path: str = "/users/1", *, method: str = "GET", key: str | None = None,
        headers: tuple[tuple[str, str], ...] = (), address: str = "198.51.100.1",
    ) -> tuple[int, int | None]:  # fmt: skip
        sent = [*([("X-API-Key", key)] if key else []), *headers]
        status, answered = self._ask(method, path, sent, address)
        left = answered.get("x-ratelimit-remaining")
        return status, None if left is None else int(left)


@pytest.fixture(params=["starlette", "flask"])
def visitor(request, start_node) -> Iterator[Visitor]:
    values = [*config(LIMIT), Plan(plan="anonymous", limits=(rule(2, "per-ip", ADDRESS_LIMIT, scope="ip"),))]
    client = values[1]
    more = [type(client)(client=f"c{nth}", plan="p") for nth in range(40)]
    node = start_node([*values, *more, *(key_of(one.client, f"tg_{one.client}") for one in more)])
    if request.param == "flask":
        with Tidegate(options(node.url, remember_denials_s=0)) as limiter:
            yield Visitor(flask_asker(limiter))
        return
    with asyncio.Runner() as runner:
        limiter = AsyncTidegate(options(node.url, remember_denials_s=0))
        try:
            yield Visitor(starlette_asker(limiter, runner.get_loop()))
        finally:
            runner.run(limiter.aclose())


def test_addresses(visitor):
    assert [visitor.ask() for _ in range(ADDRESS_LIMIT)] == [(200, 2), (200, 1), (200, 0)]
    for name in FORGED_ADDRESSES:
        value = "for=203.0.113.9" if name == "Forwarded" else "203.0.113.9"
        assert visitor.ask(headers=((name, value),)) == (429, 0), name
    assert visitor.ask(address="198.51.100.2") == (200, 2)


def test_endpoints_methods_and_what_only_gateways_may_say(visitor):
    forged = [
        *((name, "/healthz") for name in FORGED_URIS), *((name, "OPTIONS") for name in FORGED_METHODS),
        *TOLD_BY_GATEWAYS,
    ]  # fmt: skip
    for nth, header in enumerate(forged):
        key = f"tg_c{nth}"
        assert visitor.ask(key=key, headers=(header,)) == (200, LIMIT - 1), header
        assert visitor.ask("/export", method="POST", key=key, headers=(header,)) == (429, LIMIT - 1), header


def test_deny_status(visitor):
    assert visitor.ask("/export", method="POST", key="tg_acme") == (200, 0)
    for query in QUERIES:
        assert visitor.ask("/users/1" + query, key="tg_acme") == (429, 0), query


def test_the_endpoint_is_the_one_that_the_framework_routes_by(visitor):
    for nth, path in enumerate(("/healthz%3F/users/1", "/healthz%23", "/healthz/../users/1", "/healthz%2Fx")):
        assert visitor.ask(path, key=f"tg_c{nth}") == (200, LIMIT - 1), path
    assert visitor.ask("/healthz", key="tg_acme") == (200, None)
    for nth, path in enumerate(("/%65xport", "/export?x=1", "/export"), 10):
        assert visitor.ask(path, method="POST", key=f"tg_c{nth}") == (200, LIMIT - EXPORT_COST), path
    # A slash to the framework, whatever it looks like on the way: `POST /{id}/export` would cost what it costs.
    assert visitor.ask("/users%2F1", key="tg_c20") == (200, LIMIT - 1)
