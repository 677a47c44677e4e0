"""What is made of a peer's answer: a signed one is read whole, whatever single gifts in it are worth."""

import time
import zlib

import httpx
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_plane.replicate.peer_session import HttpPeers
from tidegate.contract.rights import MAX_QUANTA, MAX_UNITS, Ask, Asks, Gift, Gifts, signed_gifts

WEST = Ed25519PrivateKey.generate()
ASKED = tuple(Ask(key, 1, 0, 0, 0, 0, 0) for key in (b"{a}1", b"{b}1"))
ASKS = Asks(region="us-east", incarnation=5, sent_at=0, asks=ASKED)


def peers_answering(gifts: tuple[Gift, ...]) -> HttpPeers:
    """The way to a region that answers with these gifts, truly signed."""

    def answer(request: httpx.Request) -> httpx.Response:
        said = Gifts(region="eu-west", incarnation=7, to_incarnation=5, sent_at=time.time(), gifts=gifts)
        body = zlib.compress(msgspec.msgpack.encode(said))
        signature = WEST.sign(signed_gifts("us-east", request.content, body)).hex()
        return httpx.Response(200, stream=httpx.ByteStream(body), headers={"x-tidegate-signature": signature})

    peers = HttpPeers("us-east", Ed25519PrivateKey.generate(), lambda _: [WEST.public_key().public_bytes_raw().hex()])
    peers.client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    return peers


@pytest.mark.parametrize("quanta", [2**50 - 1, 2**50, MAX_QUANTA - 1])
async def test_all_that_a_donor_may_give_is_taken(quanta: int):
    """Who refused it would lose what the donor has paid."""
    peers = peers_answering((Gift(b"{a}1", 1, MAX_UNITS - 1, quanta, 0, False),))
    assert (await peers.ask("eu-west", "http://west", ASKS)).gifts[0].quanta == quanta
    await peers.close()


async def test_a_bad_gift_spoils_no_other():
    good, bad = Gift(b"{a}1", 1, 5, 0, 0, False), Gift(b"{b}1", 1, 5, MAX_QUANTA, 0, False)
    peers = peers_answering((bad, good))
    assert good in (await peers.ask("eu-west", "http://west", ASKS)).gifts
    await peers.close()
