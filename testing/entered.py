"""Which files of the product are gone through."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[1]
PRODUCT = {"control_plane", "data_plane", "tidegate"}


@contextmanager
def files_entered() -> Iterator[set[str]]:
    """The files (as the repository names them) whose functions this thread calls or resumes while the block runs."""
    files: set[str] = set()
    found: set[str] = set()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            files.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(None)
        ours = [Path(file).relative_to(ROOT) for file in files if Path(file).is_relative_to(ROOT)]
        found |= {str(file) for file in ours if file.parts[0] in PRODUCT}
