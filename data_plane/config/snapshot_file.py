"""The last good configuration in a file, so that a node starts and serves with no control plane.

MessagePack: ``{revision, signature, held_back, documents: [[kind, id, body], ...]}``. The signature covers revision and
digest, and the digest is computed anew from the documents when the file is read: what was tampered with does not
verify.
"""

import asyncio
import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from data_plane.config.config_set import ConfigSet
from data_plane.config.service import Snapshot
from tidegate.contract.config import Change, HeldBack
from tidegate.contract.decoding import UNREADABLE

log = structlog.get_logger()


class _File(msgspec.Struct):
    revision: int
    signature: str
    documents: list[tuple[str, str, bytes]]
    held_back: HeldBack | None = None


MAX_PAUSE_S = 30.0
PAUSE_S_A_DOCUMENT = 0.0001
AGAIN_S = 30.0
"""After this a write that failed is tried again: a disk that was full may have room, and no further revision come."""
DOCUMENTS_A_PIECE = 500


class UnreadableSnapshotError(Exception):
    """What is there is no snapshot."""


class SnapshotFile:
    """Writes in the background, the newest snapshot only; reads once at start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._newest: Snapshot | None = None
        self._wanted = asyncio.Event()
        self._trouble: str | None = None
        self.saved_revision = 0
        """The revision in the file; 0 while there is none."""
        self.saved_at_s: float | None = None
        """When the file was written, epoch seconds."""

    def load(self) -> Snapshot | None:
        """The snapshot in the file, not yet verified; ``None`` when there is no file."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnreadableSnapshotError(str(error)) from error
        try:
            snapshot = decoded(raw)
        except UnreadableSnapshotError as error:
            raise UnreadableSnapshotError(f"{self._path}: {error}") from error
        self.saved_revision, self.saved_at_s = snapshot.revision, self._path.stat().st_mtime
        return snapshot

    def save_soon(self, snapshot: Snapshot) -> None:
        """Have this snapshot written; one that is overtaken before its turn is skipped."""
        self._newest = snapshot
        self._wanted.set()

    async def run(self) -> None:
        """Write what ``save_soon`` was given, for ever. A write that fails is tried again, or with the next.

        A large configuration that changes all the time is written only now and then: a node that starts from a file
        that is some seconds old serves as well, and asks for what it missed.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S if self._trouble else None):
                    await self._wanted.wait()
            self._wanted.clear()
            documents = 0 if self._newest is None else len(self._newest.config)
            await self.flush()
            await asyncio.sleep(min(MAX_PAUSE_S, documents * PAUSE_S_A_DOCUMENT))

    async def flush(self) -> None:
        """Write the newest snapshot now, if it is not yet written."""
        snapshot, self._newest = self._newest, None
        if snapshot is None:
            return
        try:
            await asyncio.to_thread(self._write, snapshot)
            self.saved_revision, self.saved_at_s = snapshot.revision, self._path.stat().st_mtime
        except OSError as error:
            self._newest = self._newest or snapshot
            what = error.strerror or str(error)
            if what != self._trouble:
                log.error("snapshot_not_written", path=str(self._path), error=what)
            self._trouble = what
            return
        if self._trouble is not None:
            log.info("snapshot_written_again", path=str(self._path))
        self._trouble = None

    def _write(self, snapshot: Snapshot) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)  # made with mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.writelines(encoded(snapshot))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self._path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def decoded(raw: bytes) -> Snapshot:
    """A snapshot, not yet verified. Raises ``UnreadableSnapshotError``."""
    try:
        file = msgspec.msgpack.decode(raw, type=_File)
    except UNREADABLE as error:
        raise UnreadableSnapshotError(str(error)) from error
    changes = (Change(kind, id, msgspec.Raw(body)) for kind, id, body in file.documents)
    return Snapshot(file.revision, file.signature, ConfigSet.empty().with_changes(changes), file.held_back)


def encoded(snapshot: Snapshot) -> Iterator[bytes]:
    """``_File`` as MessagePack, a bit at a time: encoded in one go, 100,000 clients would stop decisions for long."""
    encode = msgspec.msgpack.Encoder().encode
    yield b"\x84" + encode("revision") + encode(snapshot.revision)
    yield encode("signature") + encode(snapshot.signature) + encode("held_back") + encode(snapshot.held_back)
    yield encode("documents") + b"\xdd" + len(snapshot.config).to_bytes(4, "big")
    documents = snapshot.config.documents()
    while piece := tuple(itertools.islice(documents, DOCUMENTS_A_PIECE)):
        yield b"".join(encode(document) for document in piece)
