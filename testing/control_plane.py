"""A control plane on a real port, and a node that follows its stream as the data plane does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from control_plane.server import ControlPlaneServer, server
from control_plane.settings import Settings
from tidegate.contract.config import (
    Begin,
    Commit,
    Documents,
    Heartbeat,
    StreamMessage,
    bucket_digest,
    bucket_of,
    document_hash,
    root_digest,
    signed_head,
)

WAIT_S = 15.0


async def until_ready(client: httpx.AsyncClient) -> None:
    """Wait for ``/readyz``."""
    async with asyncio.timeout(WAIT_S):
        while True:
            if (await client.get("/readyz")).status_code == 200:
                return
            await asyncio.sleep(0.02)


class RunningControlPlane:
    """An admin's client of a served control plane, and the credentials of its regions."""

    def __init__(self, url: str, admin: httpx.AsyncClient, uvicorn_server: ControlPlaneServer) -> None:
        self.url = url
        self.admin = admin
        self.server = uvicorn_server
        self.credentials: dict[str, str] = {}

    async def add_region(self, region: str) -> None:
        (await self.admin.put(f"/v1/regions/{region}", json={})).raise_for_status()
        issued = await self.admin.post(f"/v1/regions/{region}/credentials")
        self.credentials[region] = issued.raise_for_status().json()["credential"]

    async def nodes(self) -> dict[str, dict[str, Any]]:
        """What the control plane says of its nodes, by name."""
        return {node["node"]: node for node in (await self.admin.get("/v1/nodes")).json()["items"]}

    async def until_nodes(self, holds: Callable[[dict[str, dict[str, Any]]], bool]) -> None:
        """Wait until that holds of :meth:`nodes`."""
        async with asyncio.timeout(WAIT_S):
            while True:
                if holds(await self.nodes()):
                    return
                await asyncio.sleep(0.02)

    def node(self, node: str = "node-1", region: str = "us-east", **changes: Any) -> "FollowingNode":
        return FollowingNode(self.url, self.credentials[region], node, region, **changes)


@asynccontextmanager
async def running(settings: Settings, token: str) -> AsyncIterator[RunningControlPlane]:
    """Serve in this loop on a free port; shut down as a signal would."""
    uvicorn_server = server(settings)
    task = asyncio.create_task(uvicorn_server.serve())
    while not uvicorn_server.started:
        if task.done():
            await task
            raise AssertionError("the server ended before it started")
        await asyncio.sleep(0.01)
    port = uvicorn_server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    headers = {"Authorization": f"Bearer {token}"}
    try:
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=WAIT_S) as admin:
            await until_ready(admin)
            yield RunningControlPlane(url, admin, uvicorn_server)
    finally:
        uvicorn_server.should_exit = True
        await asyncio.wait_for(task, WAIT_S)


class FollowingNode:
    """Applies snapshots and deltas to a dictionary, verifies digest and signature, and ACKs if told to."""

    def __init__(
        self,
        url: str,
        credential: str,
        node: str,
        region: str,
        *,
        acks: bool = True,
        nacks: str | None = None,
        effective: Callable[["FollowingNode"], dict[int, int]] | None = None,
        role: str = "node",
    ) -> None:
        self.documents: dict[tuple[str, str], bytes] = {}
        self.had: set[tuple[str, str, bytes]] = set()
        """Every document that it ever had: kind, id and body."""
        self.revision = 0
        self.digest = ""
        self.begun: list[Begin] = []
        self.heartbeats: list[Heartbeat] = []
        self.ended = asyncio.Event()
        self.public_key: Ed25519PublicKey | None = None
        self._changed = asyncio.Condition()
        self.acks = acks
        self.nacks = nacks
        self.effective = effective
        self.node = node
        self.region = region
        self.role = role
        self.client = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {credential}"}, trust_env=False, timeout=WAIT_S
        )

    @asynccontextmanager
    async def following(self) -> AsyncIterator["FollowingNode"]:
        """Hold the stream while the block runs."""
        task = asyncio.create_task(self._follow())
        first = asyncio.create_task(self._first_message())
        try:
            await asyncio.wait({task, first}, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
            assert first.done(), "the stream said nothing"
            yield self
        finally:
            first.cancel()
            task.cancel()
            (outcome,) = await asyncio.gather(task, return_exceptions=True)
            await self.client.aclose()
        if isinstance(outcome, AssertionError):
            raise outcome

    async def _first_message(self) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.heartbeats or self.begun)

    async def newest(self) -> tuple[int, str]:
        """What the control plane, asked now, says that this one should have."""
        answer = await self.client.get("/internal/v1/newest", params={"node": self.node})
        body = answer.raise_for_status().json()
        return body["revision"], body["digest"]

    async def until(self, revision: int) -> None:
        """Wait until this revision, or a newer one, was applied."""
        async with asyncio.timeout(WAIT_S):
            async with self._changed:
                await self._changed.wait_for(lambda: self.revision >= revision)

    async def until_heartbeats(self, count: int) -> None:
        """Wait until so many heartbeats came."""
        async with asyncio.timeout(WAIT_S), self._changed:
            await self._changed.wait_for(lambda: len(self.heartbeats) >= count)

    async def until_begun(self) -> None:
        """Wait until a snapshot or delta began."""
        async with asyncio.timeout(WAIT_S), self._changed:
            await self._changed.wait_for(lambda: bool(self.begun))

    async def _follow(self) -> None:
        hello = {
            "node": self.node, "region": self.region, "role": self.role, "revision": self.revision,
            "digest": self.digest,
        }  # fmt: skip
        decoder = msgspec.json.Decoder(StreamMessage)
        pending: list[Documents] = []
        async with self.client.stream("GET", "/internal/v1/stream", params=hello | {"version": "test"}) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"] == "application/x-ndjson"
            async for line in response.aiter_lines():
                match decoder.decode(line):
                    case Begin() as begin:
                        self.begun.append(begin)
                        pending = []
                    case Documents() as documents:
                        assert len(documents.changes) <= 1_000
                        pending.append(documents)
                    case Commit() as commit:
                        await self._commit(pending, commit)
                    case Heartbeat() as heartbeat:
                        self.heartbeats.append(heartbeat)
                async with self._changed:
                    self._changed.notify_all()
        self.ended.set()

    async def _commit(self, pending: list[Documents], commit: Commit) -> None:
        if self.nacks is None:
            if self.begun[-1].base is None:
                self.documents = {}
            else:
                assert self.begun[-1].base == self.revision
            for part in pending:
                for change in part.changes:
                    if change.body is None:
                        self.documents.pop((change.kind, change.id), None)
                    else:
                        self.documents[change.kind, change.id] = bytes(change.body)
            self.had |= {(kind, id, body) for (kind, id), body in self.documents.items()}
            assert self.computed_digest() == commit.digest
            if self.public_key is not None:
                self.public_key.verify(bytes.fromhex(commit.signature), signed_head(commit.revision, commit.digest))
        self.revision, self.digest = commit.revision, commit.digest
        if self.acks or self.nacks:
            await self.acknowledge()

    async def acknowledge(self) -> None:
        """Answer the newest revision."""
        ack: dict[str, Any] = {"node": self.node, "revision": self.revision, "digest": self.digest}
        if self.nacks:
            ack["error"] = self.nacks
        elif self.effective is not None:
            ack["effective"] = {str(rule_id): from_us for rule_id, from_us in self.effective(self).items()}
        answer = await self.client.post("/internal/v1/acks", json=ack)
        assert answer.status_code == 204, answer.text

    def computed_digest(self) -> str:
        """The digest from what this node holds."""
        buckets: dict[int, list[bytes]] = {}
        for (kind, id), body in self.documents.items():
            buckets.setdefault(bucket_of(kind, id), []).append(document_hash(kind, id, body))
        return root_digest({bucket: bucket_digest(hashes) for bucket, hashes in buckets.items()})

    def document(self, kind: str, id: str) -> dict[str, Any]:
        """One document, decoded."""
        decoded: dict[str, Any] = msgspec.json.decode(self.documents[kind, id])
        return decoded
