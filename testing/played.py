"""A control plane that a test plays: it pushes configurations, names the newest, hears ACKs, and can be away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable

import msgspec
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from data_plane.config.index import ConfigSet
from data_plane.config.stream import Snapshot
from testing.listening import listening
from testing.node import SIGNING_KEY, document_of
from tidegate.contract.config import Ack, Begin, Change, Commit, Documents, Heartbeat, signed_head
from tidegate.contract.status import Newest

BEAT_S = 0.5


class PlayedControlPlane:
    """``cut_off`` are names of nodes and agents that do not reach it; while it is ``away`` nobody does.

    Without ``publish`` for a region, whatever a caller has is the newest. Who has an earlier one is sent what changed.
    """

    def __init__(self) -> None:
        self.url = ""
        self.away = False
        self.garbled = 0
        """How many streams begin, and end, with what nobody can read."""
        self.cut_off: set[str] = set()
        self.acks: list[Ack] = []
        self._published: dict[str, Snapshot] = {}
        self._by_head: dict[Newest, Snapshot] = {}
        self._region_of: dict[str, str] = {}
        self._has: dict[str, Newest] = {}
        self._moved = asyncio.Event()

    def publish(self, region: str, values: Iterable[object], revision: int) -> None:
        """Push a configuration to whoever of the region is connected."""
        config = ConfigSet.empty().with_changes([document_of(value) for value in values])
        signature = SIGNING_KEY.sign(signed_head(revision, config.digest)).hex()
        snapshot = self._published[region] = Snapshot(revision, signature, config)
        self._by_head[_head(snapshot)] = snapshot
        self.move()

    def move(self) -> None:
        """Let streams look at the switches."""
        self._moved.set()
        self._moved = asyncio.Event()

    def reaches(self, name: str) -> bool:
        """Whether a node or an agent reaches it."""
        return not self.away and name not in self.cut_off

    def newest(self, name: str) -> Newest:
        """What a node or an agent should have."""
        snapshot = self._published.get(self._region_of.get(name, ""))
        if snapshot is None:
            return self._has.get(name, Newest(revision=0, digest=""))
        return _head(snapshot)

    async def lines(self, name: str, region: str, has: Newest) -> AsyncIterator[bytes]:
        """A stream."""
        while self.reaches(name):
            moved = self._moved
            snapshot = self._published.get(region)
            if snapshot is not None and _head(snapshot) != has:
                before, has = self._by_head.get(has), _head(snapshot)
                messages = (
                    Begin(base=None if before is None else before.revision, revision=has.revision),
                    Documents(changes=_changes(before, snapshot)),
                    Commit(revision=has.revision, digest=has.digest, signature=snapshot.signature),
                )  # fmt: skip
            else:
                messages = (Heartbeat(revision=has.revision, digest=has.digest),)
            yield b"".join(msgspec.json.encode(message) + b"\n" for message in messages)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT_S):
                    await moved.wait()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["PlayedControlPlane"]:
        """Listen until the block ends."""
        config = uvicorn.Config(
            self._app(), port=0, lifespan="off", log_config=None, access_log=False, timeout_graceful_shutdown=1
        )
        async with listening(config) as self.url:
            try:
                yield self
            finally:
                self.away = True
                self.move()

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/internal/v1/stream")
        async def stream(node: str, region: str, revision: int = 0, digest: str = "") -> Response:
            if not self.reaches(node):
                return Response(status_code=503)
            if self.garbled:
                self.garbled -= 1
                return Response(b'{"type":"heartbeat","revision":1,"digest":"\xff"}\n')
            has = Newest(revision=revision, digest=digest)
            self._region_of[node], self._has[node] = region, has
            return StreamingResponse(self.lines(node, region, has), media_type="application/x-ndjson")

        @app.get("/internal/v1/newest")
        async def newest(node: str) -> Response:
            if not self.reaches(node) or node not in self._region_of:
                return Response(status_code=503)
            return Response(msgspec.json.encode(self.newest(node)), media_type="application/json")

        @app.post("/internal/v1/acks")
        async def acks(request: Request) -> Response:
            ack = msgspec.json.decode(await request.body(), type=Ack)
            if not self.reaches(ack.node):
                return Response(status_code=503)
            self.acks.append(ack)
            return Response(status_code=204)

        return app


def _head(snapshot: Snapshot) -> Newest:
    return Newest(revision=snapshot.revision, digest=snapshot.config.digest)


def _changes(before: Snapshot | None, after: Snapshot) -> tuple[Change, ...]:
    old, new = _bodies(before.config if before is not None else ConfigSet.empty()), _bodies(after.config)
    return tuple(Change(*name, new.get(name)) for name in old | new if old.get(name) != new.get(name))


def _bodies(config: ConfigSet) -> dict[tuple[str, str], msgspec.Raw]:
    return {(kind, id): msgspec.Raw(body) for kind, id, body in config.documents()}
