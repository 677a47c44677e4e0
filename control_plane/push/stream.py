"""One node's stream: first what the node lacks, then each new revision, and heartbeats in between."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.canary.views import Views, views
from control_plane.database import Database
from control_plane.errors import UnavailableError
from control_plane.nodes import repository as nodes
from control_plane.nodes.reports import Reports
from control_plane.publishing import repository
from control_plane.publishing.repository import Head
from control_plane.push.frames import Frames, FrameSource, encode_line
from control_plane.push.watcher import HeadWatcher
from tidegate.contract.config import Heartbeat
from tidegate.contract.status import Hello

MIN_PAUSE_S = 0.02
MAX_PAUSE_S = 0.6
PAUSE_S_A_STREAM = 0.006
"""Pause between deltas. A delta costs a replica about 1.5 ms with its ACK; the pause leaves time for writes."""
_log = structlog.stdlib.get_logger("tidegate.stream")

InForce = Callable[[AsyncSession], Awaitable[set[str]]]
"""Returns the hashes of the credentials in force."""


class Opening(NamedTuple):
    """What a node is sent first, whether its revision is known, and the stage that it gets, if any."""

    frames: Frames | None
    known: bool
    stage_revision: int | None = None


class OpenStreams:
    """The open streams of this replica, each with its credential, and their rows in the table of nodes."""

    def __init__(self, database: Database, heartbeat_s: float, reports: Reports, in_force: InForce) -> None:
        self._database = database
        self._heartbeat_s = heartbeat_s
        self._reports = reports
        self._in_force = in_force
        self._open: dict[str, str] = {}
        self._closed: set[str] = set()
        self._wake = asyncio.Event()

    @property
    def count(self) -> int:
        """Number of open streams."""
        return len(self._open)

    @property
    def pause_s(self) -> float:
        """How long a stream waits after a delta; longer with more streams."""
        return min(MAX_PAUSE_S, max(MIN_PAUSE_S, len(self._open) * PAUSE_S_A_STREAM))

    def is_open(self, stream: str) -> bool:
        """Whether a stream may continue: its credential and its region still exist."""
        return stream in self._open

    async def opened(self, hello: Hello, stream: str, credential: str, *, applied: int) -> None:
        """Record a stream and the hash of what opened it; it is refreshed until :meth:`closed`."""
        async with self._database.transaction() as session:
            await nodes.stream_opened(session, hello, stream, applied=applied)
        self._open[stream] = credential

    async def stage_sent(self, hello: Hello, stage_revision: int | None) -> None:
        """Record that a node gets a stage, before it is sent, as the node may crash before it can acknowledge."""
        if stage_revision is not None:
            async with self._database.transaction() as session:
                await nodes.stage_sent(session, hello, stage_revision)

    def closed(self, stream: str) -> None:
        """Forget a stream. Does not wait: it is called while a request is being cancelled."""
        self._open.pop(stream, None)
        self._closed.add(stream)
        self._wake.set()

    async def run(self) -> None:
        """Keep the table up to date until cancelled: refresh open streams, mark closed ones."""
        while True:
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await self.record()

    async def record(self) -> None:
        """Write changes; those that cannot be written are tried again with the next heartbeat.

        Streams whose credential is no longer in force are closed with it.
        """
        await self._reports.record()
        if not self._closed and not self._open:
            return
        try:
            async with self._database.transaction() as session:
                in_force = await self._in_force(session)
                for stream in [stream for stream, credential in self._open.items() if credential not in in_force]:
                    self.closed(stream)
                closed = set(self._closed)
                await nodes.streams_alive(session, self._open)
                if closed:
                    await nodes.streams_closed(session, closed)
        except UnavailableError:
            return
        self._closed -= closed


class NodeStream:
    """Writes the lines of one node's stream."""

    def __init__(
        self,
        frames: FrameSource,
        watcher: HeadWatcher,
        streams: OpenStreams,
        heartbeat_s: float,
        hello: Hello,
        stream: str,
    ) -> None:
        self._region, self._node = hello.region, hello.node
        self._hello = hello
        self._stream = stream
        self._frames = frames
        self._watcher = watcher
        self._streams = streams
        self._heartbeat_s = heartbeat_s

    async def lines(self, opening: Opening, has: Head) -> AsyncIterator[bytes]:
        """Send ``opening``, then deltas and heartbeats until the replica or the stream closes.

        ``has``: what the node holds.
        """
        if opening.frames is not None:
            await self._streams.stage_sent(self._hello, opening.stage_revision)
            for line in opening.frames.lines:
                yield line
            has = Head(opening.frames.revision, opening.frames.digest)
        just_sent = False
        while not self._watcher.closing and self._streams.is_open(self._stream):
            moved = self._watcher.moved.ticket()
            views = self._watcher.views
            if views is not None and is_behind(has, views.of(self._region, self._node)):
                frames = await self._delta(has.revision, views)
                if frames is not None:
                    for line in frames.lines:
                        yield line
                    has = Head(frames.revision, frames.digest)
                    just_sent = True
                    # the first change is sent at once; further changes are sent together
                    await asyncio.sleep(self._streams.pause_s)
                    continue
            if not just_sent:
                yield encode_line(Heartbeat(revision=has.revision, digest=has.digest))
            just_sent = False
            await moved.wait(self._heartbeat_s)

    async def _delta(self, base: int, views: Views) -> Frames | None:
        head = views.of(self._region, self._node)
        try:
            frames = await self._frames.delta(base, head, staged=views.in_stage(self._region, self._node))
            stage_revision = views.stage_within(self._region, self._node, base, frames.revision)
            await self._streams.stage_sent(self._hello, stage_revision)
        except UnavailableError:
            _log.warning("a delta must wait for the database", base=base, revision=head.revision)
            return None
        return frames


def is_behind(has: Head, wanted: Head) -> bool:
    """Whether a node at ``has`` must be sent a revision. A node that is ahead has left the stage and keeps it."""
    return wanted != has and wanted.revision >= has.revision


async def opening_for(database: Database, frames: FrameSource, hello: Hello) -> Opening:
    """What a node must be sent first.

    Nothing if it has the newest, a delta if it has a known revision, else a snapshot.
    """
    async with database.read() as session:
        found = await views(session)
        known = await repository.is_known(session, hello.revision, hello.digest)
    head, staged = found.of(hello.region, hello.node), found.in_stage(hello.region, hello.node)
    if not known or hello.revision > found.head.revision:
        snapshot = await frames.snapshot(head, staged=staged)
        return Opening(snapshot, False, found.stage_within(hello.region, hello.node, 0, snapshot.revision))
    if is_behind(Head(hello.revision, hello.digest), head):
        delta = await frames.delta(hello.revision, head, staged=staged)
        return Opening(delta, True, found.stage_within(hello.region, hello.node, hello.revision, delta.revision))
    return Opening(None, True)
