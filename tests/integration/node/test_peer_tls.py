"""HTTPS to other regions with a CA of one's own, where they ask for a certificate."""

import asyncio
import contextlib
import ssl
import time

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from contract.counts import Counts, CountsAnswer, encode_counts
from data_plane.replicate.http_peers import HttpPeers, tls_of
from data_plane.store.ports import UnreachablePeerError
from tests.integration.node.test_process import certificate
from tests.servers.node import node_client

ANSWER = msgspec.json.encode(CountsAnswer(incarnation="w"))


@contextlib.asynccontextmanager
async def region(cert, key):
    """Where a region is reached that lets in only who shows the certificate."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=cert)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(cert, key)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(ANSWER) + ANSWER)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_peer_is_believed_by_ones_own_ca_and_shown_a_certificate(tmp_path):
    cert, key = certificate(tmp_path)
    said = encode_counts(Counts(region="us-east", incarnation="e", sent_at=time.time()))
    async with region(cert, key) as url, contextlib.AsyncExitStack() as stack:

        async def send(tls: ssl.SSLContext | None) -> CountsAnswer:
            peers = HttpPeers("us-east", Ed25519PrivateKey.generate(), lambda _: (), tls)
            stack.push_async_callback(peers.close)
            return await peers.send("eu-west", url, said)

        assert (await send(tls_of(cert, cert, key))).incarnation == "w"
        with pytest.raises(UnreachablePeerError):
            await send(None)
        with pytest.raises(UnreachablePeerError):
            await send(tls_of(cert, None, None))


def test_a_file_that_is_not_there_is_told_at_once(tmp_path):
    assert tls_of(None, None, None) is None
    with pytest.raises(OSError, match="No such file"):
        tls_of(tmp_path / "missing", None, None)


@pytest.mark.parametrize("ours", [True, False])
async def test_the_control_plane_is_believed_by_ones_own_ca(tmp_path, valkey_url, ours):
    cert, key = certificate(tmp_path)
    asked: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"?")[0].split()[1])
            writer.write(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
        writer.close()

    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert, key)
    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ca = {"control_plane_ca_file": cert} if ours else {}
        async with node_client(tmp_path, valkey_url, [], control_plane_url=url, **ca) as client, asyncio.timeout(10):
            while not (error := (await client.get("/v1/status")).json()["control_plane"]["last_error"]):
                await asyncio.sleep(0.02)
            while ours and b"/internal/v1/stream" not in asked:
                await asyncio.sleep(0.02)
    assert ("CERTIFICATE_VERIFY_FAILED" in error) is not ours
    assert bool(asked) is ours
