"""Options of the middlewares, and kinds of views: sync and async, costs, handlers of one's own."""

import asyncio
import time

import fastapi
import flask
import httpx
from fastapi import FastAPI, HTTPException
from flask import Flask

from tests.clients.conftest import config
from tests.clients.test_frameworks import HEADERS, KEY, browser, options
from tidegate_client import AsyncTidegate, Check, Decision, Tidegate, asgi, wsgi


class AsyncFlask(Flask):
    """Runs async views without asgiref, as Flask's manual says to."""

    def async_to_sync(self, func):
        return lambda *args, **kwargs: asyncio.run(func(*args, **kwargs))


async def test_sync_views_of_fastapi_are_limited_and_run_beside_the_loop(start_node):
    node = start_node(config(5))
    async with AsyncTidegate(options(node.url)) as limiter:
        app = FastAPI()

        @app.get("/users/{id}")
        @asgi.rate_limit(limiter)
        def user(id: int) -> dict[str, bool]:
            try:
                asyncio.get_running_loop()
            except RuntimeError:
                return {"beside": True}
            return {"beside": False}

        async with browser(app) as client:
            response = await client.get("/users/1", headers=KEY)
            assert (response.json(), response.headers["x-ratelimit-remaining"]) == ({"beside": True}, "4")


async def test_a_view_whose_types_are_only_named_gets_its_request(start_node):
    node = start_node(config(5))
    async with AsyncTidegate(options(node.url)) as limiter:
        app = FastAPI()

        @app.get("/users/{id}")
        @asgi.rate_limit(limiter)
        async def user(id: "int", asked: "fastapi.Request") -> "dict[str, str]":
            return {"path": asked.url.path}

        async with browser(app) as client:
            assert (await client.get("/users/1", headers=KEY)).json() == {"path": "/users/1"}


async def test_answers_that_a_view_raises_have_the_headers(start_node):
    node = start_node(config(5))
    async with AsyncTidegate(options(node.url)) as limiter:
        app = FastAPI()
        nobody = HTTPException(404, "nobody", {"ratelimit": "mine"})

        @app.get("/users/{id}")
        @asgi.rate_limit(limiter)
        async def user(id: int) -> None:
            raise nobody if id else HTTPException(404)

        async with browser(app) as client:
            for id, remaining in ((0, "4"), (1, "3"), (1, "2")):
                response = await client.get(f"/users/{id}", headers=KEY)
                assert (response.status_code, response.headers["x-ratelimit-remaining"]) == (404, remaining)
                assert (response.headers["ratelimit"] == "mine") == bool(id)


def test_async_views_of_flask_are_limited(start_node):
    node = start_node(config(5))
    with Tidegate(options(node.url)) as limiter:
        app = AsyncFlask("app")

        @app.get("/users/<int:id>")
        @wsgi.rate_limit(limiter)
        async def user(id: int) -> dict[str, int]:
            return {"id": id}

        response = app.test_client().get("/users/3", headers=KEY)
        assert (response.get_json(), response.headers["X-RateLimit-Remaining"]) == ({"id": 3}, "4")


async def test_functions_of_the_application_may_be_async(start_node):
    """A coroutine is true: an async ``skip`` let everything through unasked."""
    node = start_node(config(5))

    async def skip(scope):
        return scope["path"] == "/skipped"

    async def identify(scope):
        return Check(api_key="tg_acme", method=scope["method"], path=scope["path"])

    async def cost(_scope):
        return 2

    async with AsyncTidegate(options(node.url)) as limiter:
        app, routes = FastAPI(), FastAPI()

        @app.get("/skipped")
        @app.get("/asked")
        async def anything() -> None: ...

        for path in ("/skipped", "/asked"):
            routes.get(path)(asgi.rate_limit(limiter, skip=skip, identify=identify)(anything))
        whole = asgi.TidegateMiddleware(app, limiter, skip=skip, identify=identify, cost=cost)
        for served, remaining in ((whole, "3"), (routes, "2")):
            async with browser(served) as client:
                assert "x-ratelimit-remaining" not in (await client.get("/skipped")).headers
                assert (await client.get("/asked")).headers["x-ratelimit-remaining"] == remaining


def test_an_async_skip_of_flask_is_asked(start_node):
    node = start_node(config(5))
    app = AsyncFlask("app")

    async def skip():
        return flask.request.path == "/skipped"

    with Tidegate(options(node.url)) as limiter:
        wsgi.TidegateFlask(app, limiter, skip=skip)

        @app.get("/skipped")
        @app.get("/asked")
        @wsgi.rate_limit(limiter, skip=skip)
        def anything() -> str:
            return "ok"

        client = app.test_client()
        assert "x-ratelimit-remaining" not in client.get("/skipped", headers=KEY).headers
        assert client.get("/asked", headers=KEY).headers["x-ratelimit-remaining"] == "3"


async def test_a_handler_of_ones_own_keeps_the_headers(start_node):
    node = start_node(config(3))

    async def teapot(scope, receive, send, decision):
        await send({"type": "http.response.start", "status": 418, "headers": [(b"retry-after", b"77")]})
        await send({"type": "http.response.body", "body": b"calm"})

    async with AsyncTidegate(options(node.url)) as limiter:
        app = asgi.TidegateMiddleware(FastAPI(), limiter, cost=lambda _scope: 4, on_denied=teapot)
        async with browser(app) as client:
            response = await client.get("/", headers=KEY)
    assert (response.status_code, response.text, response.headers["retry-after"]) == (418, "calm", "77")
    assert set(response.headers) >= HEADERS

    with Tidegate(options(node.url)) as limiter:
        flask = Flask("app")
        wsgi.TidegateFlask(
            flask, limiter, cost=lambda: 4, on_denied=lambda _decision: ("calm", 418, {"Retry-After": "77"})
        )
        denied = await asyncio.to_thread(lambda: flask.test_client().get("/", headers=KEY))
    assert (denied.status_code, denied.text, denied.headers.getlist("Retry-After")) == (418, "calm", ["77"])
    assert {name.lower() for name, _ in denied.headers} >= HEADERS


def test_below_a_limited_flask_application_the_decision_on_the_route_is_shown(start_node):
    node = start_node(config(5))
    with Tidegate(options(node.url)) as limiter:
        app = Flask("app")
        wsgi.TidegateFlask(app, limiter)

        @app.get("/users/<int:id>")
        @wsgi.rate_limit(limiter, cost=3)
        def user(id: int) -> dict[str, int]:
            return {"id": id}

        answers = [app.test_client().get("/users/3", headers=KEY) for _ in range(2)]
    # 5 - 1 - 3, then - 1 of the application: nothing is left for the route's 3.
    assert [(one.status_code, one.headers["X-RateLimit-Remaining"]) for one in answers] == [(200, "1"), (429, "0")]
    assert f";t={answers[1].headers['Retry-After']}" in answers[1].headers["RateLimit"]


async def test_what_nobody_can_decide_on_is_refused_and_never_an_error(start_node):
    node = start_node(config(5))
    two = {"X-API-Key": "tg_acme", "Authorization": "Bearer tg_other"}
    wanted = {
        "two keys": ({"headers": two}, 401, "ambiguous_api_key"),
        "one key twice, joined": ({"headers": {"X-API-Key": "tg_acme, tg_acme"}}, 200, None),
        "two in one line": ({"headers": {"X-API-Key": "tg_acme,tg_other"}}, 401, "ambiguous_api_key"),
        "a long key": ({"headers": {"X-API-Key": "k" * 300}}, 401, "malformed_api_key"),
        "a long path": ({"url": "/" + "p" * 9_000, "headers": KEY}, 403, "malformed_request"),
    }
    async with AsyncTidegate(options(node.url)) as limiter:
        seen = []

        async def app(scope, receive, send):
            seen.append(scope["path"])
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        async with browser(asgi.TidegateMiddleware(app, limiter)) as client:
            for what, (request, status, error) in wanted.items():
                response = await client.get(**{"url": "/users/1", **request})
                assert (response.status_code, error) == (status, response.json()["error"] if error else None), what
                assert ("www-authenticate" in response.headers) == (status == 401), what
        assert seen == ["/users/1"]
        refused = await limiter.authorize(method="GET", path="/", headers=two.items())
        assert (refused.status, refused.source) == (401, "client")
        app = asgi.TidegateMiddleware(app, limiter, identify=lambda _: Check(client="nobody"))
        async with browser(app) as client:
            assert (await client.get("/")).status_code == 403

    def ask_flask() -> dict:
        with Tidegate(options(node.url)) as one:
            flask = Flask("app")
            wsgi.TidegateFlask(flask, one)
            flask.add_url_rule("/<path:path>", view_func=lambda path: path)
            client = flask.test_client()
            return {
                what: client.get(request.get("url", "/users/1"), headers=request["headers"])
                for what, (request, _, _) in wanted.items()
            }

    for what, answer in (await asyncio.to_thread(ask_flask)).items():
        _, status, error = wanted[what]
        assert (answer.status_code, error) == (status, answer.get_json()["error"] if error else None), what


async def test_a_peer_of_the_same_link_is_let_in(start_node):
    node = start_node(config(5))
    async with AsyncTidegate(options(node.url)) as limiter:
        app = asgi.TidegateMiddleware(FastAPI(), limiter)
        linked = httpx.ASGITransport(app, client=("fe80::1%eth0", 5))
        async with httpx.AsyncClient(transport=linked, base_url="http://app") as client:
            assert (await client.get("/users/1", headers=KEY)).headers["x-ratelimit-remaining"] == "4"
    with Tidegate(options(node.url)) as limiter:
        flask = Flask("app")
        wsgi.TidegateFlask(flask, limiter)
        peer = {"REMOTE_ADDR": "fe80::1%eth0"}
        answer = await asyncio.to_thread(lambda: flask.test_client().get("/users/1", headers=KEY, environ_base=peer))
        assert answer.headers["X-RateLimit-Remaining"] == "3"


def test_when_the_limit_is_whole_again_is_told_by_the_clock():
    allowed = Decision(allowed=True, policy="p", limit=9, remaining=3, reset_after_s=1.5)
    assert allowed.headers(1_000.0)["X-RateLimit-Reset"] == "1002"
    now = time.time()
    assert now + 1.5 <= int(allowed.headers()["X-RateLimit-Reset"]) <= now + 60
    denied = Decision(allowed=False, status=429, policy="p", limit=9, remaining=0, reset_after_s=90, retry_after_s=4.2)
    assert denied.headers(1_000.0)["X-RateLimit-Reset"] == "1005"
    never = Decision(allowed=False, status=429, policy="p", limit=9, remaining=0, reset_after_s=90)
    assert never.headers(1_000.0)["X-RateLimit-Reset"] == "1090"
    assert "WWW-Authenticate" not in never.headers()
    assert Decision(allowed=False, status=401).headers()["WWW-Authenticate"] == "ApiKey"
