"""HTTPS to other regions with a CA of one's own, where they ask for a certificate."""

import asyncio
import contextlib
import ssl
import time

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_plane.agent import Agent
from data_plane.process import TlsFiles, tls_of
from data_plane.replicate.peer_session import HttpPeers, encode_counts
from data_plane.store.ports import UnreachablePeerError
from testing.certificates import certificate
from testing.node import agent_settings_for, node_client, serving, write_snapshot
from testing.regions import CREDENTIALS
from tidegate.contract.config import Region
from tidegate.contract.counts import Counts, CountsAnswer
from tidegate.contract.credentials import region_public_key

ANSWER = msgspec.json.encode(CountsAnswer(incarnation="w"))


@contextlib.asynccontextmanager
async def region(cert, key, asked=None):
    """Where a region is reached that lets in only who shows the certificate; ``asked`` is set by who was let in."""
    asked = asked or asyncio.Event()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=cert)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_cert_chain(cert, key)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(ANSWER) + ANSWER)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_peer_is_believed_by_ones_own_ca_and_shown_a_certificate(tmp_path):
    cert, key = certificate(tmp_path)
    said = encode_counts(Counts(region="us-east", incarnation="e", sent_at=time.time()))
    async with region(cert, key) as url, contextlib.AsyncExitStack() as stack:

        async def send(tls: ssl.SSLContext) -> CountsAnswer:
            peers = HttpPeers("us-east", Ed25519PrivateKey.generate(), lambda _: (), tls)
            stack.push_async_callback(peers.close)
            return await peers.send("eu-west", url, said)

        assert (await send(tls_of(TlsFiles(cert, key, cert)))).incarnation == "w"
        with pytest.raises(UnreachablePeerError):
            await send(tls_of(TlsFiles()))
        with pytest.raises(UnreachablePeerError):
            await send(tls_of(TlsFiles(ca=cert)))


async def test_a_renewed_certificate_is_shown_to_peers(tmp_path, valkey_url, monkeypatch):
    monkeypatch.setattr("data_plane.process.RENEWED_WITHIN_S", 0.02)
    known, own = (certificate(made(tmp_path / name)) for name in ("known", "own"))
    asked = asyncio.Event()
    async with region(*known, asked) as url:
        peer = Region(region="eu-west", peer_url=url, public_key=region_public_key(CREDENTIALS["eu-west"]))
        await write_snapshot(tmp_path / "snapshot", [Region(region="us-east"), peer])
        files = {"peers_ca_file": known[0], "peers_cert_file": own[0], "peers_key_file": own[1]}
        agent = Agent(agent_settings_for(tmp_path / "snapshot", valkey_url, **files))
        async with serving(agent), asyncio.timeout(20):
            while b'tidegate_peer_failures_total{peer="eu-west"}' not in agent.metrics().body:
                await asyncio.sleep(0.02)
            assert not asked.is_set()
            for mine, theirs in zip(own, known, strict=True):
                mine.write_bytes(theirs.read_bytes())
            await asked.wait()


def made(folder):
    folder.mkdir()
    return folder


def test_a_file_that_is_not_there_is_told_at_once(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        tls_of(TlsFiles(ca=tmp_path / "missing"))


@contextlib.asynccontextmanager
async def control_plane(cert, key, asked: set[bytes]):
    """Where a control plane is reached that is always away, and notes what it was asked for."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(cert, key)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            asked.add((await reader.readuntil(b"\r\n\r\n")).split(b"?")[0].split()[1])
            writer.write(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("ours", [True, False])
async def test_the_control_plane_is_believed_by_ones_own_ca(tmp_path, valkey_url, ours):
    cert, key = certificate(tmp_path)
    asked: set[bytes] = set()
    async with control_plane(cert, key, asked) as url:
        ca = {"control_plane_ca_file": cert} if ours else {}
        async with node_client(tmp_path, valkey_url, [], control_plane_url=url, **ca) as client, asyncio.timeout(10):
            while not (error := (await client.get("/v1/status")).json()["control_plane"]["last_error"]):
                await asyncio.sleep(0.02)
            while ours and b"/internal/v1/stream" not in asked:
                await asyncio.sleep(0.02)
    assert ("CERTIFICATE_VERIFY_FAILED" in error) is not ours
    assert bool(asked) is ours


async def test_a_renewed_ca_is_believed(tmp_path, valkey_url, monkeypatch):
    monkeypatch.setattr("data_plane.process.RENEWED_WITHIN_S", 0.02)
    (cert, key), (ca, _) = (certificate(made(tmp_path / name)) for name in ("control-plane", "other"))
    asked: set[bytes] = set()
    async with control_plane(cert, key, asked) as url:
        settings = {"control_plane_url": url, "control_plane_ca_file": ca}
        async with node_client(tmp_path, valkey_url, [], **settings) as client, asyncio.timeout(20):
            while "CERTIFICATE_VERIFY_FAILED" not in str((await client.get("/v1/status")).json()["control_plane"]):
                await asyncio.sleep(0.02)
            assert asked == set()
            ca.write_bytes(cert.read_bytes())
            while b"/internal/v1/stream" not in asked:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("ours", [True, False])
async def test_usage_is_shipped_to_a_control_plane_that_is_believed_by_ones_own_ca(tmp_path, valkey_url, ours):
    cert, key = certificate(tmp_path)
    asked: set[bytes] = set()
    await write_snapshot(tmp_path / "snapshot", [])
    async with control_plane(cert, key, asked) as url:
        ca = {"control_plane_ca_file": cert} if ours else {}
        agent = Agent(agent_settings_for(tmp_path / "snapshot", valkey_url, control_plane_url=url, **ca))
        async with serving(agent), asyncio.timeout(10):
            while ours and not {b"/internal/v1/usage", b"/internal/v1/questions"} <= asked:
                await asyncio.sleep(0.02)
            while b"tidegate_usage_ship_failures_total 0.0" in agent.metrics().body:
                await asyncio.sleep(0.02)
    assert bool(asked) is ours
