"""In front of real applications: FastAPI, Starlette, Flask."""

import httpx
import pytest
from fastapi import FastAPI
from flask import Flask, g
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from tests.clients.conftest import config
from tidegate_client import AsyncTidegate, Check, Options, Tidegate, asgi, wsgi

KEY = {"X-API-Key": "tg_acme"}
HEADERS = {"ratelimit-policy", "ratelimit", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}


def options(url: str, **members) -> Options:
    return Options(**{"urls": (url,), "timeout_s": 5.0, "on_failure": "raise", **members})


def browser(app) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app")


def assert_denied(response) -> None:
    assert response.status_code == 429
    assert response.headers["content-type"] == "application/problem+json"
    assert int(response.headers["retry-after"]) == response.json()["retry_after"] > 0
    assert response.json()["error"] == "rate_limit_exceeded"
    assert response.headers["cache-control"] == "no-store"


async def test_the_middleware_limits_every_route(start_node):
    node = start_node(config(3))
    async with AsyncTidegate(options(node.url)) as limiter:
        app = FastAPI()
        app.add_middleware(
            asgi.TidegateMiddleware, limiter=limiter, skip=lambda scope: scope["path"].startswith("/static")
        )

        @app.get("/users/{id}")
        async def user(id: int, request: Request) -> dict[str, int]:
            return {"id": id, "left": request.scope["tidegate"].remaining}

        @app.get("/static/logo")
        async def logo() -> str:
            return "logo"

        async with browser(app) as client:
            for remaining in (2, 1, 0):
                response = await client.get("/users/1", headers=KEY)
                assert response.json() == {"id": 1, "left": remaining}
                assert response.headers["x-ratelimit-remaining"] == str(remaining)
                assert set(response.headers) >= HEADERS
            assert_denied(await client.get("/users/1", headers=KEY))
            skipped = await client.get("/static/logo", headers=KEY)
            assert skipped.status_code == 200
            assert not HEADERS & set(skipped.headers)


async def test_the_decorator_limits_one_route_of_fastapi(start_node):
    node = start_node(config(7))
    async with AsyncTidegate(options(node.url)) as limiter:
        app = FastAPI()

        @app.post("/export")
        @asgi.rate_limit(limiter, endpoint="export")
        async def export(kind: str = "csv") -> dict[str, str]:
            return {"kind": kind}

        @app.get("/plain")
        @asgi.rate_limit(limiter, on_denied=lambda _request, _decision: PlainTextResponse("slow down", 429))
        async def plain(request: Request) -> JSONResponse:
            return JSONResponse({"left": request.scope["tidegate"].remaining})

        @app.get("/free")
        async def free() -> str:
            return "free"

        async with browser(app) as client:
            response = await client.post("/export?kind=pdf", headers=KEY)
            assert (response.status_code, response.json()) == (200, {"kind": "pdf"})
            assert response.headers["x-ratelimit-remaining"] == "2"
            assert_denied(await client.post("/export", headers=KEY))
            assert (await client.get("/plain", headers=KEY)).json() == {"left": 1}
            await client.get("/plain", headers=KEY)
            slowed = await client.get("/plain", headers=KEY)
            assert (slowed.text, slowed.headers["x-ratelimit-remaining"]) == ("slow down", "0")
            assert int(slowed.headers["retry-after"]) > 0
            assert not HEADERS & set((await client.get("/free", headers=KEY)).headers)
            parameters = app.openapi()["paths"]["/export"]["post"]["parameters"]
            assert [one["name"] for one in parameters] == ["kind"]


async def test_the_decorator_limits_one_route_of_starlette(start_node):
    node = start_node(config(1))
    async with AsyncTidegate(options(node.url)) as limiter:

        @asgi.rate_limit(limiter, identify=lambda _: Check(client="acme"))
        async def page(request: Request) -> PlainTextResponse:
            return PlainTextResponse("page")

        async with browser(Starlette(routes=[Route("/", page)])) as client:
            response = await client.get("/")
            assert (response.text, response.headers["x-ratelimit-remaining"]) == ("page", "0")
            assert_denied(await client.get("/"))


async def test_a_refused_key_is_a_401_problem(start_node):
    node = start_node(config(1), unknown_key="refuse")
    async with AsyncTidegate(options(node.url)) as limiter:
        app = FastAPI()
        app.add_middleware(
            asgi.TidegateMiddleware, limiter=limiter, identify=lambda _: Check(endpoint="health", api_key="tg_no")
        )
        async with browser(app) as client:
            response = await client.get("/")
            assert (response.status_code, response.json()["error"]) == (401, "unknown_api_key")


@pytest.mark.parametrize("leases", [False, True])
def test_flask_limits_all_routes_or_one(start_node, leases):
    node = start_node(config(7))
    with Tidegate(options(node.url, leases=leases)) as limiter:
        app, partly = Flask("all"), Flask("partly")
        wsgi.TidegateFlask(app, limiter, skip=lambda: False)

        @app.get("/users/<int:id>")
        def user(id: int) -> dict[str, int]:
            return {"id": id, "left": g.tidegate.remaining}

        @partly.post("/export")
        @wsgi.rate_limit(limiter, endpoint="export")
        def export() -> str:
            return "exported"

        @partly.get("/free")
        def free() -> str:
            return "free"

        first = app.test_client().get("/users/7", headers=KEY)
        assert first.get_json() == {"id": 7, "left": 6}
        assert {name.lower() for name, _ in first.headers} >= HEADERS
        client = partly.test_client()
        assert client.post("/export", headers=KEY).text == "exported"
        denied = client.post("/export", headers=KEY)
        assert (denied.status_code, denied.content_type) == (429, "application/problem+json")
        assert int(denied.headers["Retry-After"]) == denied.get_json()["retry_after"]
        assert client.get("/free").text == "free"
