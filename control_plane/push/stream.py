"""What nodes are sent: what a node lacks, then each new revision, and heartbeats in between.

From top to bottom: which revision each node should have, how a replica learns of a new one, which streams are open, the
lines of one, and the frames that all share. A replica has one LISTEN connection for all streams and waiters.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import NamedTuple, cast

import asyncpg
import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.canary import repository as rollouts
from control_plane.canary.placement import Held, held_by
from control_plane.database import Database, translated
from control_plane.errors import UnavailableError
from control_plane.metrics import Metrics
from control_plane.nodes import repository as nodes
from control_plane.nodes.reports import Reports
from control_plane.nodes.repository import ACK_CHANNEL
from control_plane.publishing import repository
from control_plane.publishing.repository import REVISION_CHANNEL, Head, Signer
from tidegate.contract.config import Begin, Change, Commit, Documents, Heartbeat, HeldBack, Kind, StreamMessage
from tidegate.contract.status import Hello

MIN_PAUSE_S = 0.02
MAX_PAUSE_S = 0.6
PAUSE_S_A_STREAM = 0.006
"""Pause between deltas. A delta costs a replica about 1.5 ms with its ACK; the pause leaves time for writes."""
KEPT_REVISIONS = 64
KEPT_DELTAS = 64
KEPT_SNAPSHOTS = 2
MAX_FRAME_BYTES = 256 * 1024
InForce = Callable[[AsyncSession], Awaitable[set[str]]]
"""Returns the hashes of the credentials in force."""
_log = structlog.stdlib.get_logger("tidegate.stream")


class StagePlace(NamedTuple):
    """Whether a node is in the stage of ``rollout`` (the revision that began it; 0 where none is under way)."""

    rollout: int
    in_stage: bool


class Views(NamedTuple):
    """The newest revision, and what nodes outside the stage of a roll-out should have (the same where there is none).

    ``node`` is empty in the stage of a whole region. ``rollout`` is the revision that began it, ``stage_revision`` what
    nodes of the stage must apply.
    """

    head: Head
    stable: Head
    region: str = ""
    node: str = ""
    stage_revision: int = 0
    rollout: int = 0

    def in_stage(self, region: str, node: str) -> bool:
        """Whether this node gets the head."""
        return not self.region or (region == self.region and self.node in ("", node))

    def place_of(self, region: str, node: str) -> StagePlace:
        """Where this node stands in the roll-out that is under way."""
        return StagePlace(self.rollout, self.in_stage(region, node))

    def of(self, region: str, node: str) -> Head:
        """What this node should have."""
        return self.head if self.in_stage(region, node) else self.stable


async def views(session: AsyncSession) -> Views:
    """Both views in this session."""
    row = await repository.whole_head(session)
    head = Head(row.revision, row.digest)
    if row.rollout is None:
        return Views(head, head)
    stable = Head(row.stable_revision or 0, row.stable_digest or repository.NOTHING)
    under_way = await rollouts.rollout(session, row.rollout)
    stage_revision = 0 if under_way is None else under_way.stage_revision
    return Views(head, stable, row.stage_region or "", row.stage_node or "", stage_revision, row.rollout)


class Ticket:
    """Waits for the first signal after it was taken."""

    def __init__(self, event: asyncio.Event) -> None:
        self._event = event

    async def wait(self, timeout_s: float) -> None:
        """Return after the signal (at once if it came already), or after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return


class Signal:
    """A repeated signal. Take a ticket, check, then wait on the ticket: no signal is missed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ticket(self) -> Ticket:
        """A ticket for the next signal."""
        return Ticket(self._event)

    def fire(self) -> None:
        """Wake everyone who waits now."""
        fired, self._event = self._event, asyncio.Event()
        fired.set()


class HeadWatcher:
    """Follows the head by notifications, and by a query every ``poll_s`` in case one was lost.

    ``views`` is ``None`` until it was read once. While Postgres is away the last one known stays.
    """

    def __init__(self, database: Database, poll_s: float) -> None:
        self._database = database
        self._poll_s = poll_s
        self._look = asyncio.Event()
        self._closing = False
        self.views: Views | None = None
        self._learned: OrderedDict[int, float] = OrderedDict()
        self.moved = Signal()
        self.acked = Signal()

    @property
    def closing(self) -> bool:
        """Whether this replica is shutting down, and streams should end."""
        return self._closing

    @property
    def head(self) -> Head | None:
        """The newest revision."""
        return None if self.views is None else self.views.head

    @property
    def revision(self) -> int:
        """The newest known revision; 0 before the first."""
        return 0 if self.views is None else self.views.head.revision

    def known_for_s(self, revision: int) -> float | None:
        """How long ago this replica saw ``revision`` first; ``None`` if it is not among the newest."""
        learned = self._learned.get(revision)
        return None if learned is None else time.monotonic() - learned

    def close(self) -> None:
        """End every stream and every wait now."""
        self._closing = True
        self.moved.fire()
        self.acked.fire()

    async def run(self) -> None:
        """Follow until cancelled, reconnecting as long as it takes."""
        await self._database.stay_connected(self._follow, "lost sight of revisions")

    async def _follow(self, connection: asyncpg.Connection) -> None:
        with translated():
            await connection.add_listener(REVISION_CHANNEL, lambda *_: self._look.set())
            await connection.add_listener(ACK_CHANNEL, lambda *_: self.acked.fire())
        connection.add_termination_listener(lambda *_: self._look.set())
        watchdog = asyncio.create_task(self._database.watch(connection))
        try:
            while not connection.is_closed():
                self._look.clear()
                await self._refresh()
                try:
                    async with asyncio.timeout(self._poll_s):
                        await self._look.wait()
                except TimeoutError:
                    continue
        finally:
            watchdog.cancel()
            await asyncio.gather(watchdog, return_exceptions=True)

    async def _refresh(self) -> None:
        async with self._database.read(reserved=True) as session:
            found = await views(session)
        if found != self.views:
            self.views = found
            for head in (found.stable, found.head):
                self._learned.setdefault(head.revision, time.monotonic())
            while len(self._learned) > KEPT_REVISIONS:
                self._learned.popitem(last=False)
            self.moved.fire()


class Frames(NamedTuple):
    """The lines from ``Begin`` to ``Commit``, and the head that a node has after them."""

    head: Head
    lines: tuple[bytes, ...]


FramesKey = tuple[int | None, Head, StagePlace]
"""Base (``None``: a snapshot), head, and ``Views.place_of``."""
KeptFrames = OrderedDict[FramesKey, asyncio.Task[Frames]]


class Update(NamedTuple):
    """What a node is sent next, and the stage that it gets by it, if any."""

    frames: Frames
    stage_revision: int | None


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
                closed = list(self._closed)
                await nodes.streams_seen(session, list(self._open), closed)
        except UnavailableError:
            return
        self._closed.difference_update(closed)


class NodeStream:
    """Writes the lines of one node's stream."""

    def __init__(
        self,
        source: "FrameSource",
        watcher: HeadWatcher,
        streams: OpenStreams,
        heartbeat_s: float,
        hello: Hello,
        name: str,
    ) -> None:
        self._source = source
        self._watcher = watcher
        self._streams = streams
        self._heartbeat_s = heartbeat_s
        self._hello = hello
        self._name = name

    async def lines(self, opening: Update | None, credential: str, *, applied: int) -> AsyncIterator[bytes]:
        """Send ``opening``, then deltas and heartbeats until the replica or the stream closes.

        ``applied``: the revision that the node has, 0 if it is not known.
        """
        try:
            # opened here, as a generator that never starts never runs its `finally`
            await self._streams.opened(self._hello, self._name, credential, applied=applied)
            async for line in self._lines(opening):
                yield line
        except UnavailableError:
            return  # the node dials again
        finally:
            self._streams.closed(self._name)

    async def _lines(self, opening: Update | None) -> AsyncIterator[bytes]:
        has = Head(self._hello.revision, self._hello.digest)
        if opening is not None:
            await self._streams.stage_sent(self._hello, opening.stage_revision)
            for line in opening.frames.lines:
                yield line
            has = opening.frames.head
        just_sent = False
        while not self._watcher.closing and self._streams.is_open(self._name):
            moved = self._watcher.moved.ticket()
            frames = await self._next(has)
            if frames is not None:
                for line in frames.lines:
                    yield line
                has = frames.head
                just_sent = True
                # the first change is sent at once; further changes are sent together
                await asyncio.sleep(self._streams.pause_s)
                continue
            if not just_sent:
                yield encode_line(Heartbeat(revision=has.revision, digest=has.digest))
            just_sent = False
            await moved.wait(self._heartbeat_s)

    async def _next(self, has: Head) -> Frames | None:
        if self._watcher.views is None:
            return None
        try:
            update = await self._source.update(self._watcher.views, self._hello, has)
            if update is None:
                return None
            await self._streams.stage_sent(self._hello, update.stage_revision)
        except UnavailableError as error:
            _log.warning("a delta must wait", base=has.revision, revision=self._watcher.revision, reason=str(error))
            return None
        return update.frames


class FrameSource:
    """Makes frames from the database; streams that ask for the same at the same time share one query."""

    def __init__(self, database: Database, signer: Signer, metrics: Metrics) -> None:
        self._database = database
        self._signer = signer
        self._metrics = metrics
        self._deltas, self._snapshots = KeptFrames(), KeptFrames()

    async def update(self, views: Views, hello: Hello, has: Head, *, known: bool = True) -> Update | None:
        """What brings a node from ``has`` to what it should have: a snapshot if ``has`` is not ``known``.

        ``None`` if it has that, or is ahead: then it has left the stage, and keeps the revision.
        """
        head, place = views.of(hello.region, hello.node), views.place_of(hello.region, hello.node)
        if known and (head == has or head.revision < has.revision):
            return None
        base = has.revision if known else 0
        frames = await (self.delta(base, head, place) if known else self.snapshot(head, place))
        gets_stage = place.rollout and place.in_stage and base < views.stage_revision <= frames.head.revision
        return Update(frames, views.stage_revision if gets_stage else None)

    async def snapshot(self, head: Head, place: StagePlace) -> Frames:
        """A snapshot of ``head`` or newer, for nodes in this place.

        Raises ``UnavailableError`` where another roll-out has begun: they may have another place in it.
        """
        return await self._shared(self._snapshots, KEPT_SNAPSHOTS, (None, head, place))

    async def delta(self, base: int, head: Head, place: StagePlace) -> Frames:
        """A delta from ``base`` to ``head`` or newer, as ``snapshot``; a snapshot if ``base`` is too old."""
        return await self._shared(self._deltas, KEPT_DELTAS, (base, head, place))

    async def _shared(self, kept: KeptFrames, most: int, key: FramesKey) -> Frames:
        task = kept.get(key)
        if task is None or _failed(task):
            base, _, place = key
            task = kept[key] = asyncio.create_task(self._read(base, place))
            while len(kept) > most:
                kept.popitem(last=False)
        return await asyncio.shield(task)

    async def _read(self, base: int | None, place: StagePlace) -> Frames:
        async with self._database.read() as session:
            whole = await repository.whole_head(session)
            if whole.rollout not in (None, place.rollout):
                raise UnavailableError("Another roll-out has begun.")
            if base is not None and base < whole.deltas_from:
                base = None
            head, lacks, held = Head(whole.revision, whole.digest), None, Held()
            if not place.in_stage and whole.rollout is not None:
                lacking = await rollouts.rollout(session, whole.rollout, with_held=True)
                if lacking is not None:
                    head = Head(whole.stable_revision or 0, whole.stable_digest or "")
                    lacks = HeldBack(rollout=lacking.number, whole=lacking.base_revision)
                    held = held_by(lacking)
            lines = [encode_line(Begin(base=base, revision=head.revision, held_back=lacks))]
            async for part in repository.documents_since(session, base):
                lines.extend(document_lines(document_changes(_without(part, held))))
            earlier = [(key.kind, key.id, body) for key, body in held.items()
                       if body is not None or base is not None]  # fmt: skip
            lines.extend(document_lines(document_changes(earlier)))
            self._metrics.frames_made("snapshot" if base is None else "delta")
            signature = self._signer.sign(head.revision, head.digest)
            lines.append(encode_line(Commit(revision=head.revision, digest=head.digest, signature=signature)))
        return Frames(head, tuple(lines))


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


def encode_line(message: StreamMessage) -> bytes:
    """One message as a line of NDJSON."""
    return msgspec.json.encode(message) + b"\n"
