"""The HTTP client of nodes and agents."""

import contextlib
import io
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from data_plane.process import HTTP_ERRORS, HttpClient, HttpStatusError

PATIENT = aiohttp.ClientTimeout(10)


@contextlib.asynccontextmanager
async def answering(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[HttpClient]:
    """A client of a server whose every path, below ``/base``, answers by ``answer``."""
    app = web.Application()
    app.router.add_route("*", "/base/{path:.*}", answer)
    async with TestServer(app) as server:
        client = HttpClient(PATIENT, None, str(server.make_url("/base/")), "tgr_x")
        try:
            yield client
        finally:
            await client.close()


async def test_a_request_says_who_asks_and_keeps_nothing_of_earlier_answers():
    asked: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request)
        response = web.Response(body=await request.read())
        response.set_cookie("kept", "no")
        return response

    async with answering(answer) as client:
        for _ in range(2):
            assert await client.ask("POST", "/x", json={"a": 1}, params={"b": "c d&"}) == b'{"a":1}'
    for request in asked:
        assert (request.path, request.query["b"]) == ("/base/x", "c d&")
        assert request.headers["authorization"] == "Bearer tgr_x"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["accept-encoding"] == "identity"
        assert "cookie" not in request.headers
    assert asked[0].transport is asked[1].transport, "the connection is kept"


@pytest.mark.parametrize("status", [302, 307, 404, 503])
async def test_another_status_than_success_is_an_error_that_tells_it(status: int):
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"location": str(request.url.parent / "elsewhere")})

    async with answering(answer) as client:
        with pytest.raises(HttpStatusError, match=f"answered {status}") as failed:
            await client.ask("GET", "/x")
    assert failed.value.status == status
    assert isinstance(failed.value, HTTP_ERRORS)


async def test_no_proxy_of_the_environment_is_asked(monkeypatch: pytest.MonkeyPatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=b"direct")

    async with answering(answer) as client:
        assert await client.ask("GET", "/x") == b"direct"


async def test_a_server_that_takes_no_body_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as server:  # it accepts nothing: what its kernel has no room for stays
        port = server.getsockname()[1]
        client = HttpClient(aiohttp.ClientTimeout(0.5, connect=5.0, sock_read=0.01), None, f"http://127.0.0.1:{port}")
        with pytest.raises(TimeoutError) as failed:
            await client.ask("POST", "/x", data=io.BytesIO(bytes(2**26)))
        await client.close()
    assert not isinstance(failed.value, aiohttp.SocketTimeoutError), "it was not yet time to wait for an answer"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "no address", "http://[half", "http://.", "ftp://west"])
async def test_an_address_without_a_server_is_one_of_the_errors(url: str):
    client = HttpClient(PATIENT, None, url)
    with pytest.raises(HTTP_ERRORS):
        await client.ask("GET", "/x")
    await client.close()


async def test_a_client_that_asked_nothing_has_nothing_to_close():
    await HttpClient(PATIENT).close()


def test_nodes_and_agents_load_no_other_client():
    """A second one would take its part of every start."""
    check = "import sys, data_plane.main; sys.exit('httpx' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
