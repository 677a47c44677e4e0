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
from control_plane.rollout.reports import Reports
from control_plane.rollout.repository import Head
from control_plane.rollout.staging import Views, views
from control_plane.rollout.watcher import HeadWatcher

MIN_PAUSE_S = 0.02
MAX_PAUSE_S = 0.6
PAUSE_S_A_STREAM = 0.006
"""A delta costs a replica about 1.5 ms with its ACK: with many writes at once most of its time is left for them."""
_log = structlog.stdlib.get_logger("tidegate.stream")


class OpenStreams:
    """The streams of this replica, and their traces in the table of nodes."""

    def __init__(self, database: Database, heartbeat_s: float, reports: Reports) -> None:
        self._database = database
        self._heartbeat_s = heartbeat_s
        self._reports = reports
        self._open: set[str] = set()
        self._closed: set[str] = set()
        self._wake = asyncio.Event()

    @property
    def count(self) -> int:
        """How many are open on this replica."""
        return len(self._open)

    @property
    def pause_s(self) -> float:
        """How long a stream waits after a delta for the next: the more there are, the more each one costs."""
        return min(MAX_PAUSE_S, max(MIN_PAUSE_S, len(self._open) * PAUSE_S_A_STREAM))

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
        await self._reports.record()
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

    def __init__(
        self, frames: FrameSource, watcher: HeadWatcher, streams: OpenStreams, heartbeat_s: float, hello: Hello
    ) -> None:
        self._region, self._node = hello.region, hello.node
        self._frames = frames
        self._watcher = watcher
        self._streams = streams
        self._heartbeat_s = heartbeat_s

    async def lines(self, opening: Frames | None, has: Head) -> AsyncIterator[bytes]:
        """Send ``opening``, then deltas and heartbeats until the replica closes. ``has``: what the node holds."""
        if opening is not None:
            for line in opening.lines:
                yield line
            has = Head(opening.revision, opening.digest)
        just_sent = False
        while not self._watcher.closing:
            moved = self._watcher.moved.ticket()
            views = self._watcher.views
            if views is not None and is_behind(has, views.of(self._region, self._node)):
                frames = await self._delta(has.revision, views)
                if frames is not None:
                    for line in frames.lines:
                        yield line
                    has = Head(frames.revision, frames.digest)
                    just_sent = True
                    # the first change goes out at once; many one after the other go together
                    await asyncio.sleep(self._streams.pause_s)
                    continue
            if not just_sent:
                yield encode_line(Heartbeat(revision=has.revision, digest=has.digest))
            just_sent = False
            await moved.wait(self._heartbeat_s)

    async def _delta(self, base: int, views: Views) -> Frames | None:
        head = views.of(self._region, self._node)
        try:
            return await self._frames.delta(base, head, staged=views.in_stage(self._region, self._node))
        except UnavailableError:
            _log.warning("a delta must wait for the database", base=base, revision=head.revision)
            return None


def is_behind(has: Head, wanted: Head) -> bool:
    """Whether a node that has ``has`` must be sent something. One that is ahead keeps it: it left the stage."""
    return wanted != has and wanted.revision >= has.revision


async def opening_for(database: Database, frames: FrameSource, hello: Hello) -> tuple[Frames | None, bool]:
    """What a node must be sent first, and whether what it has is known.

    Nothing if it has the newest, a delta if it has a known revision, else a snapshot.
    """
    async with database.read() as session:
        found = await views(session)
        known = await repository.is_known(session, hello.revision, hello.digest)
    head, staged = found.of(hello.region, hello.node), found.in_stage(hello.region, hello.node)
    if not known or hello.revision > found.head.revision:
        return await frames.snapshot(head, staged=staged), False
    if is_behind(Head(hello.revision, hello.digest), head):
        return await frames.delta(hello.revision, head, staged=staged), True
    return None, True
