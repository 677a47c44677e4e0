"""The configuration at rest: what is written is what is read, and a broken file is said to be one."""

import asyncio
import multiprocessing
import os
import signal
from pathlib import Path

import msgspec
import pytest
from structlog.testing import capture_logs

from data_plane.config import snapshots
from data_plane.config.index import ConfigSet
from data_plane.config.snapshots import SnapshotFile, UnreadableSnapshotError, encoded
from data_plane.config.stream import Snapshot
from tidegate.contract.config import Change


def snapshot_of(count: int, revision: int = 7) -> Snapshot:
    changes = (Change("client", f"c{number}", msgspec.Raw(b'{"client":"c","plan":"p"}')) for number in range(count))
    return Snapshot(revision, "ab" * 64, ConfigSet.empty().with_changes(changes))


@pytest.mark.parametrize("count", [0, 1, 500, 70_000])
async def test_what_is_written_is_read_again(tmp_path: Path, count: int) -> None:
    file = SnapshotFile(tmp_path / "deep" / "snapshot")
    assert file.load() is None
    written = snapshot_of(count)
    file.save_soon(written)
    await file.flush()
    found = SnapshotFile(tmp_path / "deep" / "snapshot").load()
    assert found is not None
    assert (found.revision, found.signature, found.config.digest) == (7, "ab" * 64, written.config.digest)
    assert len(found.config) == count
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["snapshot"]
    assert (tmp_path / "deep" / "snapshot").stat().st_mode & 0o777 == 0o600


def test_the_same_documents_are_the_same_bytes_in_whatever_order_they_came() -> None:
    """Agents of a region write pieces of one name at once: those of different files would spoil each other."""
    changes = [Change(kind, f"c{number}", msgspec.Raw(b"{}")) for number in range(5_000) for kind in ("client", "key")]
    there, back = (ConfigSet.empty().with_changes(order) for order in (changes, reversed(changes)))
    assert there.digest == back.digest
    assert b"".join(encoded(Snapshot(7, "", there))) == b"".join(encoded(Snapshot(7, "", back)))


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = tmp_path / "snapshot"
    old = {"revision": 3, "signature": "00", "documents": [("client", "a", b'{"client":"a","plan":"p"}')]}
    path.write_bytes(msgspec.msgpack.encode(old))
    found = SnapshotFile(path).load()
    assert found is not None
    assert list(found.config.documents()) == old["documents"]


NO_TEXT = msgspec.msgpack.encode({"revision": 3, "signature": "aaaa", "documents": []}).replace(b"aaaa", b"aa\xffa")


@pytest.mark.parametrize("raw", [b"", b"\x83", b"\xc1garbage", msgspec.msgpack.encode({"revision": "x"}), NO_TEXT])
def test_a_broken_file_is_said_to_be_one(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "snapshot"
    path.write_bytes(raw)
    with pytest.raises(UnreadableSnapshotError):
        SnapshotFile(path).load()


def test_what_cannot_be_read_is_said_to_be_that(tmp_path: Path) -> None:
    with pytest.raises(UnreadableSnapshotError):
        SnapshotFile(tmp_path).load()


async def test_a_large_configuration_is_not_written_with_every_change(tmp_path: Path) -> None:
    file = SnapshotFile(tmp_path / "snapshot")
    writing = asyncio.create_task(file.run())
    try:
        file.save_soon(snapshot_of(70_000, 1))
        async with asyncio.timeout(20):
            while file.saved_revision != 1:
                await asyncio.sleep(0.01)
        file.save_soon(snapshot_of(70_000, 2))
        await asyncio.sleep(0)
        assert file.saved_revision == 1
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    # at its end a node writes what it has
    await file.flush()
    assert file.saved_revision == 2


async def test_what_could_not_be_written_is_tried_again_though_nothing_new_comes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(snapshots, "AGAIN_S", 0.01)
    folder = tmp_path / "folder"
    folder.write_text("in the way")
    file = SnapshotFile(folder / "snapshot")
    writing = asyncio.create_task(file.run())
    try:
        with capture_logs() as lines:
            file.save_soon(snapshot_of(3, 1))
            async with asyncio.timeout(5):
                while not lines:
                    await asyncio.sleep(0.01)
                assert file.saved_revision == 0
                folder.unlink()
                while file.saved_revision != 1:
                    await asyncio.sleep(0.01)
        assert [line["event"] for line in lines] == ["snapshot_not_written", "snapshot_written_again"]
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


def die_while_writing(path: Path) -> None:
    os.fsync = lambda _file: os.kill(os.getpid(), signal.SIGKILL)
    file = SnapshotFile(path)
    file.load()
    file.save_soon(snapshot_of(1))
    asyncio.run(file.flush())


def test_what_a_process_left_that_died_while_it_wrote_is_removed_at_the_next_start(tmp_path: Path) -> None:
    """It would die again and again where its memory is too small for the configuration, until the disk is full."""
    bystander = tmp_path / "snapshot-of-mine"
    bystander.touch()
    for _ in range(2):
        process = multiprocessing.get_context("spawn").Process(target=die_while_writing, args=(tmp_path / "snapshot",))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert len(list(tmp_path.iterdir())) == 2
    assert SnapshotFile(tmp_path / "snapshot").load() is None
    assert list(tmp_path.iterdir()) == [bystander]
