"""Snapshots and deltas as lines ready to send, made once however many streams want them."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TypeVar, cast

import msgspec

from control_plane.canary import repository as rollouts
from control_plane.canary.views import Held, held_by
from control_plane.database import Database
from control_plane.metrics import Metrics
from control_plane.publishing import repository
from control_plane.publishing.documents import Signer
from control_plane.publishing.repository import Head
from tidegate.contract.config import Begin, Change, Commit, Documents, HeldBack, Kind, StreamMessage

Key = TypeVar("Key")

KEPT_DELTAS = 64
KEPT_SNAPSHOTS = 2
MAX_FRAME_BYTES = 256 * 1024


class Frames(msgspec.Struct, frozen=True):
    """The lines from ``Begin`` to ``Commit``, and the head that a node has after them."""

    revision: int
    digest: str
    lines: tuple[bytes, ...]


def encode_line(message: StreamMessage) -> bytes:
    """One message as a line of NDJSON."""
    return msgspec.json.encode(message) + b"\n"


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
