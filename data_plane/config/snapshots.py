"""The last good configuration in a file, and in the region's store, so that a process starts without the control plane.

MessagePack: ``{revision, signature, held_back, documents: [[kind, id, body], ...]}``. The signature covers revision and
digest; the digest is computed from the documents when they are read, so that changes are found.
"""

import asyncio
import contextlib
import itertools
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from data_plane.config.index import ConfigSet
from data_plane.config.stream import Snapshot
from data_plane.store.ports import StoreUnavailableError
from data_plane.store.redis.store import RedisCounterStore
from tidegate.contract.config import Change, HeldBack
from tidegate.contract.decoding import UNREADABLE, InflateError, inflated

log = structlog.get_logger()


class _File(msgspec.Struct):
    revision: int
    signature: str
    documents: list[tuple[str, str, bytes]]
    held_back: HeldBack | None = None


MAX_PAUSE_S = 30.0
PAUSE_S_A_DOCUMENT = 0.0001
AGAIN_S = 30.0
"""A failed write is tried again after this time, as a full disk may have room again."""
DOCUMENTS_A_PIECE = 500

KEY = "tg:snapshot"
PIECE_BYTES = 64 * 1024
MAX_PIECES = 20_000
CHECK_EVERY_S = 30.0
"""An emptied store has the snapshot again after this time."""


class UnreadableSnapshotError(Exception):
    """The bytes are no snapshot."""


class SnapshotFile:
    """Writes the newest snapshot in the background; reads it once at start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._newest: Snapshot | None = None
        self._wanted = asyncio.Event()
        self._failure: str | None = None
        self.saved_revision = 0
        """The revision in the file; 0 without a file."""
        self.saved_at_s: float | None = None
        """When the file was written, epoch seconds."""

    def load(self) -> Snapshot | None:
        """The snapshot in the file, not yet verified; ``None`` without a file."""
        with contextlib.suppress(OSError):
            for unfinished in self._path.parent.glob(f"{self._path.name}.*.new"):  # its process died
                unfinished.unlink()
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
        """Write this snapshot in the background, unless a newer one comes first."""
        self._newest = snapshot
        self._wanted.set()

    async def run(self) -> None:
        """Write snapshots of ``save_soon`` for ever; failed writes are tried again.

        A large configuration that changes often is written now and then only: a node that starts from an older file
        asks for what it missed.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(AGAIN_S if self._failure else None):
                    await self._wanted.wait()
            self._wanted.clear()
            documents = 0 if self._newest is None else len(self._newest.config)
            await self.flush()
            await asyncio.sleep(min(MAX_PAUSE_S, documents * PAUSE_S_A_DOCUMENT))

    async def flush(self) -> None:
        """Write the newest snapshot now, if it is not written yet."""
        snapshot, self._newest = self._newest, None
        if snapshot is None:
            return
        try:
            await asyncio.to_thread(self._write, snapshot)
            self.saved_revision, self.saved_at_s = snapshot.revision, self._path.stat().st_mtime
        except OSError as error:
            self._newest = self._newest or snapshot
            failure = error.strerror or str(error)
            if failure != self._failure:
                log.error("snapshot_not_written", path=str(self._path), error=failure)
            self._failure = failure
            return
        if self._failure is not None:
            log.info("snapshot_written_again", path=str(self._path))
        self._failure = None

    def _write(self, snapshot: Snapshot) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # made with mode 0600
        handle, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=f"{self._path.name}.", suffix=".new")
        try:
            with os.fdopen(handle, "wb") as file:
                file.writelines(encoded(snapshot))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self._path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


class _Contents(msgspec.Struct, frozen=True):
    revision: int
    name: str
    pieces: int


_contents = msgspec.json.Decoder(_Contents)


class StoredSnapshot:
    """Reads the region's newest snapshot in its store; agents also write it.

    It is stored as small deflated pieces, and a key that names them once all are written.
    """

    def __init__(self, store: RedisCounterStore) -> None:
        self._store = store
        self._newest: Snapshot | None = None
        self._undone = 0
        """The newest revision that was in force before the control plane, restored, went back to an earlier one."""
        self._wanted = asyncio.Event()

    def save_soon(self, snapshot: Snapshot) -> None:
        """Write this snapshot in the background, unless the store has a newer one."""
        if self._newest is not None and 0 < snapshot.revision <= self._newest.revision:
            self._undone = max(self._undone, self._newest.revision)
        self._newest = snapshot
        self._wanted.set()

    async def run(self) -> None:
        """Write the newest snapshot for ever: when it changes, and when the store has lost it."""
        while True:
            try:
                async with asyncio.timeout(CHECK_EVERY_S):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            if self._newest is not None:
                try:
                    await self.save(self._newest)
                except StoreUnavailableError as error:
                    log.debug("snapshot_not_stored", reason=error.reason)
                await asyncio.sleep(min(MAX_PAUSE_S, len(self._newest.config) * PAUSE_S_A_DOCUMENT))

    async def save(self, snapshot: Snapshot) -> None:
        """Write a snapshot, unless the store has it or a newer one. Raises ``StoreUnavailableError``."""
        name, count = snapshot.config.digest[:16], 0
        before = await self._read()
        if before is not None and (before.revision, before.name) == (snapshot.revision, name):
            return
        if before is not None and before.revision >= snapshot.revision and before.revision > self._undone:
            return
        for piece in _pieces(encoded(snapshot)):
            packed = await asyncio.to_thread(zlib.compress, piece, 1)
            await self._store.execute("SET", _piece(name, count), packed)
            count += 1
        contents = _Contents(snapshot.revision, name, count)
        await self._store.execute("SET", KEY, msgspec.json.encode(contents))
        if before is not None and before.name != name:
            for number in range(min(before.pieces, MAX_PIECES)):
                await self._store.execute("DEL", _piece(before.name, number))

    async def load(self, after: int) -> Snapshot | None:
        """The snapshot, not yet verified, if it is newer than revision ``after``.

        Raises ``StoreUnavailableError``, ``UnreadableSnapshotError``.
        """
        contents = await self._read()
        if contents is None or contents.revision <= after:
            return None
        if not 0 < contents.pieces <= MAX_PIECES:
            raise UnreadableSnapshotError(f"{contents.pieces} pieces")
        raw = bytearray()
        for number in range(contents.pieces):
            packed = await self._store.execute("GET", _piece(contents.name, number))
            if packed is None:
                raise UnreadableSnapshotError("a piece is missing: a newer one is being written")
            try:
                raw += inflated(packed, PIECE_BYTES)
            except InflateError as error:
                raise UnreadableSnapshotError(f"a piece {error}") from error
        return decoded(bytes(raw))

    async def _read(self) -> _Contents | None:
        body = await self._store.execute("GET", KEY)
        try:
            return None if body is None else _contents.decode(body)
        except UNREADABLE:  # of another version
            return None


def decoded(raw: bytes) -> Snapshot:
    """A snapshot, not yet verified. Raises ``UnreadableSnapshotError``."""
    try:
        file = msgspec.msgpack.decode(raw, type=_File)
    except UNREADABLE as error:
        raise UnreadableSnapshotError(str(error)) from error
    changes = (Change(kind, id, msgspec.Raw(body)) for kind, id, body in file.documents)
    return Snapshot(file.revision, file.signature, ConfigSet.empty().with_changes(changes), file.held_back)


def encoded(snapshot: Snapshot) -> Iterator[bytes]:
    """``_File`` as MessagePack, in pieces, as encoding 100,000 clients at once would delay decisions."""
    encode = msgspec.msgpack.Encoder().encode
    yield b"\x84" + encode("revision") + encode(snapshot.revision)
    yield encode("signature") + encode(snapshot.signature) + encode("held_back") + encode(snapshot.held_back)
    yield encode("documents") + b"\xdd" + len(snapshot.config).to_bytes(4, "big")
    documents = snapshot.config.documents()
    while piece := tuple(itertools.islice(documents, DOCUMENTS_A_PIECE)):
        yield b"".join(encode(document) for document in piece)


def _piece(name: str, number: int) -> str:
    return f"{KEY}:{name}:{number}"


def _pieces(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of at most ``PIECE_BYTES``."""
    waiting, size = [], 0
    for chunk in itertools.chain(chunks, (b"",)):
        waiting.append(chunk)
        size += len(chunk)
        if size >= PIECE_BYTES or not chunk:
            joined = b"".join(waiting)
            waiting, size = [], 0
            for start in range(0, len(joined), PIECE_BYTES):
                yield joined[start : start + PIECE_BYTES]
