"""SHA-256 of files, and the file in which `sha256sum -c` finds them."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def sha256(path: Path) -> str:
    """The digest in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def checksums(files: Iterable[Path]) -> str:
    """A line for each file, by name."""
    return "".join(f"{sha256(path)}  {path.name}\n" for path in sorted(files))
