"""Signals pulled from a server that the node's settings name: narrow bounds, whatever the server does."""

import asyncio
import contextlib
import json
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from data_plane.load.deciding import PullError
from data_plane.load.http_clients import MAX_BYTES, PrometheusServers
from testing.node import agent_settings_for

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


def answer(result, kind="vector", status="success", **members):
    body = json.dumps({"status": status, "data": {"resultType": kind, "result": result}, **members}).encode()
    return OK + b"content-length: %d\r\n\r\n" % len(body) + body


@contextlib.asynccontextmanager
async def serving(reply):
    """A server that sends these bytes to whoever asks (``None``: nothing); yields its URL and what it was asked."""
    asked, handling = [], []

    async def handle(reader, writer):
        handling.append(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            if reply is None:
                await reader.read()
            else:
                writer.write(reply)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
        finally:
            await asyncio.gather(*handling)


async def ask(reply, query="avg(load)"):
    async with serving(reply) as (url, asked):
        servers = PrometheusServers({"main": url})
        try:
            return await servers.ask("main", query), asked
        finally:
            await servers.close()


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        (answer([{"metric": {}, "value": [1.9e9, "0.75"]}]), 0.75),
        (answer([1.9e9, "42"], kind="scalar"), 42.0),
        (answer([{"value": [0, "9"]}, {"value": [0, "1"]}, {"value": [0, "3"]}]), 3.0),
        (answer([{"value": [0, "9"]}, {"value": [0, "1"]}]), 1.0),
    ],
)
async def test_a_query_is_answered_by_its_value_or_the_lower_median(reply, value):
    query = 'sum(rate(x{a="b+c&d=%2F#"}[1m])) > 0'
    found, asked = await ask(reply, query)
    assert found == value
    method, target, version = asked[0].decode().splitlines()[0].split()
    assert (method, urlsplit(target).path, version) == ("GET", "/api/v1/query", "HTTP/1.1")
    assert parse_qs(urlsplit(target).query) == {"query": [query]}


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (answer([]), "empty"),
        (answer([{"value": [0, "1"]}], status="error"), "empty"),
        (answer([{"value": [0, "NaN"]}]), "implausible"),
        (answer([{"value": [0, "-1"]}]), "implausible"),
        (answer([{"value": [0, "+Inf"]}]), "implausible"),
        (answer([{"value": [0, "one"]}]), "malformed"),
        (answer([[0, "1"]], kind="matrix"), "malformed"),
        (OK + b"content-length: 4\r\n\r\nnull", "malformed"),
        (OK + b"content-length: 2\r\n\r\n\xff\xfe", "malformed"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n", "redirect"),
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", "refused"),
        (OK + b"\r\n" + b" " * (MAX_BYTES + 1), "too_large"),
        (b"not http at all\r\n\r\n", "unreachable"),
        (None, "timeout"),
    ],
)
async def test_everything_else_is_no_signal_and_says_why(reply, reason):
    with pytest.raises(PullError) as failed:
        await ask(reply)
    assert failed.value.reason == reason


async def test_a_server_that_the_settings_do_not_name_is_never_asked():
    servers = PrometheusServers({"main": "http://127.0.0.1:9"})
    for name in ("other", "http://169.254.169.254", "MAIN"):
        with pytest.raises(PullError, match="unknown_server"):
            await servers.ask(name, "up")
    with pytest.raises(PullError, match="unreachable"):
        await servers.ask("main", "up")
    await servers.close()


def test_servers_are_settings_of_the_agent(tmp_path):
    found = agent_settings_for(
        tmp_path / "s", "redis://x", load_servers="main=http://prometheus:9090, b=https://m.example/x"
    )
    assert found.load_server_urls() == {"main": "http://prometheus:9090", "b": "https://m.example/x"}
    for wrong in ("main", "main=prometheus:9090", "main=file:///etc/passwd", "A=http://x", "main=http://x?y=1"):
        with pytest.raises(ValidationError, match="load_servers"):
            agent_settings_for(tmp_path / "s", "redis://x", load_servers=wrong)
