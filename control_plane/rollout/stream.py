"""One node's stream: what it lacks, then each revision as it comes, and a heartbeat when nothing does."""

import asyncio
from collections.abc import AsyncIterator

import structlog

from contract.config import Heartbeat
from contract.status import Hello
from control_plane.database import Database
from control_plane.errors import UnavailableError
from control_plane.rollout import nodes, repository
from control_plane.rollout.frames import Frames, FrameSource, encode_line
from control_plane.rollout.repository import Head
from control_plane.rollout.watcher import HeadWatcher

_log = structlog.stdlib.get_logger("tidegate.stream")


class OpenStreams:
    """The streams of this replica, and their traces in the table of nodes."""

    def __init__(self, database: Database, heartbeat_s: float) -> None:
        self._database = database
        self._heartbeat_s = heartbeat_s
        self._open: set[str] = set()
        self._closed: set[str] = set()
        self._wake = asyncio.Event()

    @property
    def count(self) -> int:
        """How many are open on this replica."""
        return len(self._open)

    async def opened(self, hello: Hello, stream: str, *, applied: int) -> None:
        """Record a stream; it is refreshed until :meth:`closed`."""
        async with self._database.transaction() as session:
            await nodes.stream_opened(session, hello, stream, applied=applied)
        self._open.add(stream)

    def closed(self, stream: str) -> None:
        """Forget a stream. Does not wait: it is called while a request is being cancelled."""
        self._open.discard(stream)
        self._closed.add(stream)
        self._wake.set()

    async def run(self) -> None:
        """Keep the table true until cancelled: refresh open streams, mark closed ones."""
        while True:
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self.record()

    async def record(self) -> None:
        """Write what changed; what cannot be written now is tried again with the next heartbeat."""
        closed = set(self._closed)
        if not closed and not self._open:
            return
        try:
            async with self._database.transaction() as session:
                await nodes.streams_alive(session, self._open)
                if closed:
                    await nodes.streams_closed(session, closed)
        except UnavailableError:
            return
        self._closed -= closed


class NodeStream:
    """Writes the lines of one node's stream."""

    def __init__(self, frames: FrameSource, watcher: HeadWatcher, heartbeat_s: float) -> None:
        self._frames = frames
        self._watcher = watcher
        self._heartbeat_s = heartbeat_s

    async def lines(self, opening: Frames | None, has: Head) -> AsyncIterator[bytes]:
        """Send ``opening``, then deltas and heartbeats until the replica closes. ``has``: what the node holds."""
        if opening is not None:
            for line in opening.lines:
                yield line
            has = Head(opening.revision, opening.digest)
        while not self._watcher.closing:
            moved = self._watcher.moved.ticket()
            head = self._watcher.head
            if head is not None and head.revision > has.revision:
                frames = await self._delta(has.revision, head.revision)
                if frames is not None:
                    for line in frames.lines:
                        yield line
                    has = Head(frames.revision, frames.digest)
                    continue
            yield encode_line(Heartbeat(revision=has.revision, digest=has.digest))
            await moved.wait(self._heartbeat_s)

    async def _delta(self, base: int, head: int) -> Frames | None:
        try:
            return await self._frames.delta(base, head)
        except UnavailableError:
            _log.warning("a delta must wait for the database", base=base, revision=head)
            return None


async def opening_for(database: Database, frames: FrameSource, hello: Hello) -> tuple[Frames | None, bool]:
    """What a node must be sent first, and whether what it has is known.

    Nothing if it has the newest, a delta if it has a known revision, else a snapshot.
    """
    async with database.read() as session:
        head = await repository.head(session)
        known = hello.revision <= head.revision and await repository.is_known(session, hello.revision, hello.digest)
    if known and hello.revision == head.revision:
        return None, True
    if known:
        return await frames.delta(hello.revision, head.revision), True
    return await frames.snapshot(head.revision), False
