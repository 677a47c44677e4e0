"""Snapshots and deltas as lines ready to send, made once however many streams want them."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TypeVar, cast

import msgspec

from contract.config import Begin, Change, Commit, Documents, Kind, StreamMessage
from control_plane.database import Database
from control_plane.rollout import repository
from control_plane.rollout.signing import Signer

Key = TypeVar("Key")

KEPT_DELTAS = 64
KEPT_SNAPSHOTS = 1
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

    def __init__(self, database: Database, signer: Signer) -> None:
        self._database = database
        self._signer = signer
        self._deltas: OrderedDict[tuple[int, int], asyncio.Task[Frames]] = OrderedDict()
        self._snapshots: OrderedDict[int, asyncio.Task[Frames]] = OrderedDict()

    async def snapshot(self, head: int) -> Frames:
        """Everything, as of revision ``head`` or newer."""
        task = self._snapshots.get(head)
        if task is None or _failed(task):
            task = self._snapshots[head] = asyncio.create_task(self._read(None))
            _trim(self._snapshots, KEPT_SNAPSHOTS)
        return await asyncio.shield(task)

    async def delta(self, base: int, head: int) -> Frames:
        """What changed after ``base``, as of revision ``head`` or newer."""
        task = self._deltas.get((base, head))
        if task is None or _failed(task):
            task = self._deltas[base, head] = asyncio.create_task(self._read(base))
            _trim(self._deltas, KEPT_DELTAS)
        return await asyncio.shield(task)

    async def _read(self, base: int | None) -> Frames:
        async with self._database.read() as session:
            head = await repository.head(session)
            lines = [encode_line(Begin(base=base, revision=head.revision))]
            async for part in repository.documents_since(session, base):
                lines.extend(document_lines(document_changes(part)))
            signature = self._signer.sign(head.revision, head.digest)
            lines.append(encode_line(Commit(revision=head.revision, digest=head.digest, signature=signature)))
        return Frames(head.revision, head.digest, tuple(lines))


def document_changes(rows: Iterable[Sequence[str | None]]) -> list[Change]:
    """Rows of kind, id and body as they cross the stream."""
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


def _trim(
    kept: OrderedDict[tuple[int, int], asyncio.Task[Frames]] | OrderedDict[int, asyncio.Task[Frames]], most: int
) -> None:
    while len(kept) > most:
        kept.popitem(last=False)
