"""What is made of a peer's answer: a signed one is read whole, whatever single gifts in it are worth."""

import asyncio
import contextlib
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_plane.replicate import peer_session
from data_plane.replicate.peer_session import HttpPeers
from data_plane.store.ports import UnreachablePeerError
from tidegate.contract.rights import MAX_QUANTA, MAX_UNITS, Ask, Asks, Gift, Gifts, signed_gifts

WEST = Ed25519PrivateKey.generate()
ASKED = tuple(Ask(key, 1, 0, 0, 0, 0, 0) for key in (b"{a}1", b"{b}1"))
ASKS = Asks(region="us-east", incarnation=5, sent_at=0, asks=ASKED)


@contextlib.asynccontextmanager
async def peers_answering(gifts: tuple[Gift, ...]) -> AsyncIterator[tuple[HttpPeers, str]]:
    """The way to a region that answers with these gifts, truly signed, and its address."""

    async def answer(request: web.Request) -> web.Response:
        said = Gifts(region="eu-west", incarnation=7, to_incarnation=5, sent_at=time.time(), gifts=gifts)
        body = zlib.compress(msgspec.msgpack.encode(said))
        signature = WEST.sign(signed_gifts("us-east", await request.read(), body)).hex()
        return web.Response(body=body, headers={"x-tidegate-signature": signature})

    async with answering(answer) as (peers, url):
        yield peers, url


@contextlib.asynccontextmanager
async def answering(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[tuple[HttpPeers, str]]:
    app = web.Application()
    app.router.add_post("/internal/v1/rights", answer)
    keys = [WEST.public_key().public_bytes_raw().hex()]
    peers = HttpPeers("us-east", Ed25519PrivateKey.generate(), lambda _: keys)
    async with TestServer(app) as server:
        try:
            yield peers, str(server.make_url("/"))
        finally:
            await peers.close()


@pytest.mark.parametrize("quanta", [2**50 - 1, 2**50, MAX_QUANTA - 1])
async def test_all_that_a_donor_may_give_is_taken(quanta: int):
    """Who refused it would lose what the donor has paid."""
    async with peers_answering((Gift(b"{a}1", 1, MAX_UNITS - 1, quanta, 0, False),)) as (peers, url):
        assert (await peers.ask("eu-west", url, ASKS)).gifts[0].quanta == quanta


async def test_a_bad_gift_spoils_no_other():
    good, bad = Gift(b"{a}1", 1, 5, 0, 0, False), Gift(b"{b}1", 1, 5, MAX_QUANTA, 0, False)
    async with peers_answering((bad, good)) as (peers, url):
        assert good in (await peers.ask("eu-west", url, ASKS)).gifts


async def test_what_is_no_answer_of_a_peer_is_one_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peer_session, "MAX_ANSWER_BYTES", 1_000)

    async def much(_: web.Request) -> web.Response:
        return web.Response(body=bytes(1_001))

    async def refused(_: web.Request) -> web.Response:
        return web.Response(status=503)

    async def elsewhere(_: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect("http://elsewhere")

    async def cut(request: web.Request) -> web.Response:
        request.transport.abort()
        return web.Response()

    async def unsigned(_: web.Request) -> web.Response:
        return web.Response(body=b"junk")

    for answer, why in (
        (much, "more than 1000 bytes"), (refused, "answered 503"), (elsewhere, "answered 307"),
        (cut, "Disconnected|Reset"), (unsigned, "signature is wrong"),
    ):  # fmt: skip
        async with answering(answer) as (peers, url):
            with pytest.raises(UnreachablePeerError, match=why):
                await peers.ask("eu-west", url, ASKS)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "no address", "http://[half", "http://.", "ftp://west"])
async def test_an_address_without_a_peer_is_one_that_cannot_be_reached(url: str):
    peers = HttpPeers("us-east", Ed25519PrivateKey.generate(), lambda _: [])
    try:
        with pytest.raises(UnreachablePeerError):
            await peers.ask("eu-west", url, ASKS)
    finally:
        await peers.close()


async def test_a_peer_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peer_session, "TIMEOUT_S", 0.1)
    over = asyncio.Event()

    async def silent(_: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    async with answering(silent) as (peers, url):
        with pytest.raises(UnreachablePeerError, match="Timeout"):
            await peers.ask("eu-west", url, ASKS)
        over.set()
