"""What nodes are sent: what a node lacks, then each new revision, and heartbeats in between.

From top to bottom: what a stream begins with, its lines, the frames that all streams share, which streams are open.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar, cast

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.canary import repository as rollouts
from control_plane.canary.placement import Held, Views, held_by, views
from control_plane.database import Database
from control_plane.errors import UnavailableError
from control_plane.metrics import Metrics
from control_plane.nodes import repository as nodes
from control_plane.nodes.reports import Reports
from control_plane.publishing import repository
from control_plane.publishing.repository import Head, Signer
from control_plane.push.watcher import HeadWatcher
from tidegate.contract.config import Begin, Change, Commit, Documents, Heartbeat, HeldBack, Kind, StreamMessage
from tidegate.contract.status import Hello

KEPT_DELTAS = 64
KEPT_SNAPSHOTS = 2
MAX_FRAME_BYTES = 256 * 1024
MIN_PAUSE_S = 0.02
MAX_PAUSE_S = 0.6
PAUSE_S_A_STREAM = 0.006
"""Pause between deltas. A delta costs a replica about 1.5 ms with its ACK; the pause leaves time for writes."""
Key = TypeVar("Key")
_log = structlog.stdlib.get_logger("tidegate.stream")

InForce = Callable[[AsyncSession], Awaitable[set[str]]]
"""Returns the hashes of the credentials in force."""


class Frames(msgspec.Struct, frozen=True):
    """The lines from ``Begin`` to ``Commit``, and the head that a node has after them."""

    revision: int
    digest: str
    lines: tuple[bytes, ...]


class Opening(NamedTuple):
    """What a node is sent first, whether its revision is known, and the stage that it gets, if any."""

    frames: Frames | None
    known: bool
    stage_revision: int | None = None


async def opening_for(database: Database, frames: "FrameSource", hello: Hello) -> Opening:
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


def is_behind(has: Head, wanted: Head) -> bool:
    """Whether a node at ``has`` must be sent a revision. A node that is ahead has left the stage and keeps it."""
    return wanted != has and wanted.revision >= has.revision


class NodeStream:
    """Writes the lines of one node's stream."""

    def __init__(
        self,
        frames: "FrameSource",
        watcher: HeadWatcher,
        streams: "OpenStreams",
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


class FrameSource:
    """Makes frames from the database; streams that ask for the same at the same time share one query."""

    def __init__(self, database: Database, signer: Signer, metrics: Metrics) -> None:
        self._database = database
        self._signer = signer
        self._metrics = metrics
        self._deltas: OrderedDict[tuple[int, Head, bool], asyncio.Task[Frames]] = OrderedDict()
        self._snapshots: OrderedDict[tuple[Head, bool], asyncio.Task[Frames]] = OrderedDict()

    async def snapshot(self, head: Head, *, staged: bool) -> Frames:
        """A snapshot of ``head`` or newer. ``staged`` includes what a roll-out holds back from other nodes."""
        task = self._snapshots.get((head, staged))
        if task is None or _failed(task):
            task = self._snapshots[head, staged] = asyncio.create_task(self._read(None, staged=staged))
            _trim(self._snapshots, KEPT_SNAPSHOTS)
        return await asyncio.shield(task)

    async def delta(self, base: int, head: Head, *, staged: bool) -> Frames:
        """A delta from ``base`` to ``head`` or newer; a snapshot if ``base`` is too old."""
        key = (base, head, staged)
        task = self._deltas.get(key)
        if task is None or _failed(task):
            task = self._deltas[key] = asyncio.create_task(self._read(base, staged=staged))
            _trim(self._deltas, KEPT_DELTAS)
        return await asyncio.shield(task)

    async def _read(self, base: int | None, *, staged: bool) -> Frames:
        async with self._database.read() as session:
            whole = await repository.whole_head(session)
            if base is not None and base < whole.deltas_from:
                base = None
            rollout = None
            if not staged and whole.rollout is not None:
                rollout = await rollouts.rollout(session, whole.rollout, with_held=True)
            held: Held = {} if rollout is None else held_by(rollout)
            head = Head(whole.revision, whole.digest)
            if not staged and whole.rollout is not None:
                head = Head(whole.stable_revision or 0, whole.stable_digest or "")
            lacks = None if rollout is None else HeldBack(rollout=rollout.number, whole=rollout.base_revision)
            lines = [encode_line(Begin(base=base, revision=head.revision, held_back=lacks))]
            async for part in repository.documents_since(session, base):
                lines.extend(document_lines(document_changes(_without(part, held))))
            earlier = [(key.kind, key.id, body) for key, body in held.items()
                       if body is not None or base is not None]  # fmt: skip
            lines.extend(document_lines(document_changes(earlier)))
            self._metrics.frames_made("snapshot" if base is None else "delta")
            signature = self._signer.sign(head.revision, head.digest)
            lines.append(encode_line(Commit(revision=head.revision, digest=head.digest, signature=signature)))
        return Frames(head.revision, head.digest, tuple(lines))


def _without(rows: Iterable[Sequence[str | None]], held: Held) -> Iterable[Sequence[str | None]]:
    return (row for row in rows if (row[0], row[1]) not in held)


def document_changes(rows: Iterable[Sequence[str | None]]) -> list[Change]:
    """Rows of kind, id and body as changes for the stream."""
    return [
        Change(cast("Kind", kind), id or "", None if body is None else msgspec.Raw(body.encode()))
        for kind, id, body in rows
    ]


def document_lines(changes: Iterable[Change]) -> list[bytes]:
    """``Documents`` messages that together hold ``changes``, each begun anew once it is over ``MAX_FRAME_BYTES``."""
    lines: list[bytes] = []
    part: list[Change] = []
    size = 0
    for change in changes:
        part.append(change)
        size += len(change.id) + (0 if change.body is None else len(bytes(change.body)))
        if size >= MAX_FRAME_BYTES:
            lines.append(encode_line(Documents(changes=tuple(part))))
            part, size = [], 0
    if part:
        lines.append(encode_line(Documents(changes=tuple(part))))
    return lines


def _failed(task: asyncio.Task[Frames]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _trim(kept: OrderedDict[Key, asyncio.Task[Frames]], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)


def encode_line(message: StreamMessage) -> bytes:
    """One message as a line of NDJSON."""
    return msgspec.json.encode(message) + b"\n"


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
