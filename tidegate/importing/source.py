"""What is imported: YAML or JSON within bounds, and members taken from it with their place in every error."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tidegate.file.document import ConfigDocument, FileError

MOST_BYTES = 16 * 2**20


class Part:
    """A mapping of the source and where it stands, such as ``kong.yml: services[0].routes[1]``."""

    def __init__(self, place: str, value: Any, *, is_file: bool = False) -> None:
        if not isinstance(value, Mapping):
            raise FileError(f"{place}: must be a mapping")
        self.place = place
        self._before = f"{place}: " if is_file else f"{place}."
        self.value: Mapping[str, Any] = value

    def at(self, name: str) -> str:
        """Where a member stands."""
        return f"{self._before}{name}"

    def __contains__(self, name: str) -> bool:
        return self.value.get(name) is not None

    def text(self, name: str) -> str | None:
        """A text; numbers and truth values count as what is written."""
        found = self.value.get(name)
        if found is None:
            return None
        if isinstance(found, bool):
            return str(found).lower()
        if not isinstance(found, str | int | float):
            raise FileError(f"{self.at(name)}: must be a text")
        return str(found)

    def needed(self, name: str) -> str:
        """A text that must be there."""
        found = self.text(name)
        if not found:
            raise FileError(f"{self.at(name)}: must be given")
        return found

    def flag(self, name: str) -> bool | None:
        """A truth value."""
        found = self.value.get(name)
        if found is not None and not isinstance(found, bool):
            raise FileError(f"{self.at(name)}: must be true or false")
        return found

    def part(self, name: str) -> "Part":
        """A mapping inside; an empty one where there is none."""
        return Part(self.at(name), self.value.get(name) or {})

    def parts(self, name: str) -> Iterator["Part"]:
        """The mappings of a list inside."""
        for at, item in enumerate(self.items(name)):
            yield Part(f"{self.at(name)}[{at}]", item)

    def items(self, name: str) -> list[Any]:
        """A list inside; an empty one where there is none."""
        found = self.value.get(name)
        if found is None:
            return []
        if not isinstance(found, list):
            raise FileError(f"{self.at(name)}: must be a list")
        return found


def read(path: Path) -> Part:
    """The file, or standard input for ``-``. Raises ``FileError`` for what is no mapping, or beyond the bounds."""
    name = "standard input" if str(path) == "-" else str(path)
    try:
        with sys.stdin.buffer if str(path) == "-" else path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        text = raw.decode()
    except OSError as error:
        raise FileError(f"{name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{name}: is not UTF-8: {error.reason}") from None
    if len(raw) > MOST_BYTES:
        raise FileError(f"{name}: is larger than {MOST_BYTES // 2**20} MiB")
    return Part(name, ConfigDocument(name, text, wanted="must be a mapping").content, is_file=True)
