"""The region's newest signed snapshot in its store, for a process that starts without a file and a control plane.

It is stored as small deflated pieces, and a key that names them once all are written. Agents write it; a process that
starts reads it and verifies its signature.
"""

import asyncio
import itertools
import zlib
from collections.abc import Iterator

import msgspec
import structlog

from data_plane.config.snapshot_file import (
    MAX_PAUSE_S,
    PAUSE_S_A_DOCUMENT,
    UnreadableSnapshotError,
    decoded,
    encoded,
)
from data_plane.config.stream import Snapshot
from data_plane.store.ports import StoreUnavailableError
from data_plane.store.redis.client import store_errors
from data_plane.store.redis.store import RedisCounterStore
from tidegate.contract.decoding import UNREADABLE

log = structlog.get_logger()

KEY = "tg:snapshot"
PIECE_BYTES = 64 * 1024
MAX_PIECES = 20_000
CHECK_EVERY_S = 30.0
"""An emptied store has the snapshot again after this time."""


class _Contents(msgspec.Struct, frozen=True):
    revision: int
    name: str
    pieces: int


_contents = msgspec.json.Decoder(_Contents)


class StoredSnapshot:
    """Reads the snapshot; agents also write it."""

    def __init__(self, store: RedisCounterStore) -> None:
        self._store = store
        self._newest: Snapshot | None = None
        self._wanted = asyncio.Event()

    def save_soon(self, snapshot: Snapshot) -> None:
        """Write this snapshot in the background, unless the store has a newer one."""
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
        before = await self._read()
        if before is not None and before.revision >= snapshot.revision:
            return
        name, count = snapshot.config.digest[:16], 0
        for piece in _pieces(encoded(snapshot)):
            packed = await asyncio.to_thread(zlib.compress, piece, 1)
            await self._execute("SET", _piece(name, count), packed)
            count += 1
        contents = _Contents(snapshot.revision, name, count)
        await self._execute("SET", KEY, msgspec.json.encode(contents))
        if before is not None and before.name != name:
            for number in range(min(before.pieces, MAX_PIECES)):
                await self._execute("DEL", _piece(before.name, number))

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
            packed = await self._execute("GET", _piece(contents.name, number))
            raw += _unpacked(packed)
        return decoded(bytes(raw))

    async def _read(self) -> _Contents | None:
        body = await self._execute("GET", KEY)
        try:
            return None if body is None else _contents.decode(body)
        except UNREADABLE:  # of another version
            return None

    async def _execute(self, *command: str | bytes) -> bytes | None:
        with store_errors():
            reply: bytes | None = await self._store.execute(*command)
            return reply


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


def _unpacked(packed: bytes | None) -> bytes:
    if packed is None:
        raise UnreadableSnapshotError("a piece is missing: a newer one is being written")
    unpacker = zlib.decompressobj()
    try:
        piece = unpacker.decompress(packed, PIECE_BYTES)
    except zlib.error as error:
        raise UnreadableSnapshotError(str(error)) from error
    if unpacker.unconsumed_tail:
        raise UnreadableSnapshotError(f"a piece of more than {PIECE_BYTES} bytes")
    return piece
