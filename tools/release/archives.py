"""Archives as artefacts are: read one member after the other, and written so that equal contents are equal bytes."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MODE = 0o644


class Member(NamedTuple):
    """A file inside an archive; ``path`` begins with the archive's own name."""

    path: str
    content: bytes


def members(path: Path) -> Iterator[Member]:
    """Every file in a wheel, sdist, chart or npm package, and in archives inside these; any other file is itself."""
    yield from _members(path.name, path.read_bytes())


def _members(name: str, content: bytes) -> Iterator[Member]:
    if name.endswith((".whl", ".zip")):
        with zipfile.ZipFile(io.BytesIO(content)) as wheel:
            for entry in wheel.infolist():
                if not entry.is_dir():
                    yield from _members(f"{name}/{entry.filename}", wheel.read(entry))
    elif name.endswith((".tgz", ".tar.gz")):
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for item in archive:
                file = archive.extractfile(item)
                if file is not None:
                    yield from _members(f"{name}/{item.name}", file.read())
    else:
        yield Member(name, content)


def normalise(path: Path, epoch_s: int) -> None:
    """Write a gzipped tar again: sorted, with one time, no owners."""
    with tarfile.open(path) as archive:
        files = sorted((item.name, _read(archive, item)) for item in archive if item.isfile())
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files:
            item = tarfile.TarInfo(name)
            item.size, item.mtime, item.mode = len(content), epoch_s, MODE
            archive.addfile(item, io.BytesIO(content))
    path.write_bytes(gzip.compress(packed.getvalue(), mtime=epoch_s))


def _read(archive: tarfile.TarFile, item: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(item)
    return b"" if file is None else file.read()
