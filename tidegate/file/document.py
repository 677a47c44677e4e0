"""The YAML file: read with duplicate names refused, and with the line of whatever turns out to be wrong."""

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
from ruamel.yaml.emitter import Emitter
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

MOST_TIMES_EXPANDED = 10
"""With its aliases a file says at most so many values for each character that is written."""
MOST_DEPTH = 50
MOST_MERGED = 10_000
"""Members of a mapping with all that it merges (<<): ruamel copies them for each merge, before any value is made."""
MERGE = "tag:yaml.org,2002:merge"
_WANTS_QUOTES = re.compile(r"^[?:]|  |[^ -~\u00a1-\ud7ff]")


class FileError(Exception):
    """The file cannot be read; the message says where and why."""


class ConfigDocument:
    """A file: what it says as JSON, and where it says it."""

    def __init__(self, name: str, text: str, *, wanted: str = "must be a mapping that begins with version: 1") -> None:
        self.name = name
        self._text = text
        self.content = _read(name, text)
        if not isinstance(self.content, dict):
            raise FileError(f"{name}: {wanted}")

    @classmethod
    def from_path(cls, path: Path) -> "ConfigDocument":
        """Read a file, or standard input for ``-``."""
        try:
            raw = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
            text = raw.decode()
        except OSError as error:
            raise FileError(f"{path}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise FileError(f"{path}: is not UTF-8: {error.reason}") from None
        return cls("standard input" if str(path) == "-" else str(path), text)

    @property
    def clients(self) -> int:
        """How many clients it holds."""
        found = self.content.get("clients")
        return len(found) if isinstance(found, dict) else 0

    def as_json(self) -> bytes:
        """The body that the control plane takes. Raises ``FileError`` for what YAML can say and JSON cannot."""
        try:
            return json.dumps(self.content, allow_nan=False).encode()
        except (TypeError, ValueError) as error:  # !!binary, !!set, a name that is a list; .nan, 0x with 4,000 digits
            raise FileError(f"{self.name}: says what JSON cannot: {error}") from None

    def line_of(self, field: str) -> int | None:
        """The line (from 1) of ``plans.free.limits.hourly.limit``, or of the nearest thing around it."""
        try:
            node: Node | None = YAML(typ="safe").compose(self._text)
        except YAMLError:
            return None
        line = None
        rest = field
        while isinstance(node, MappingNode) and rest:
            # names may hold dots: the longest one that fits is meant
            fitting = [
                (key, value) for key, value in node.value if rest == key.value or rest.startswith(f"{key.value}.")
            ]
            if not fitting:
                break
            key, node = max(fitting, key=lambda pair: len(pair[0].value))
            line = key.start_mark.line + 1
            rest = rest[len(key.value) + 1 :]
        return line


def _read(name: str, text: str) -> Any:
    if text.lstrip().startswith("{"):
        return _read_json(name, text)
    yaml = YAML(typ="safe")
    yaml.Constructor = _Constructor
    try:
        content = yaml.load(text)
        if "*" in text:
            _check_aliases(name, content, len(text))
    except DuplicateKeyError as error:
        line = 0 if error.problem_mark is None else error.problem_mark.line + 1
        raise FileError(f"{name}:{line}: {str(error.problem).splitlines()[0]}") from None
    except RecursionError:
        raise FileError(f"{name}: is nested too deeply") from None
    except MarkedYAMLError as error:
        line = 0 if error.problem_mark is None else error.problem_mark.line + 1
        raise FileError(f"{name}:{line}: is not YAML: {error.problem}") from None
    except YAMLError as error:
        raise FileError(f"{name}: is not YAML: {error}") from None
    except ValueError as error:  # !!int x
        raise FileError(f"{name}: is not YAML: {error}") from None
    return content


def _read_json(name: str, text: str) -> dict[str, Any]:
    """JSON is YAML, and much quicker to read: what a program made comes like this."""
    try:
        content: dict[str, Any] = json.loads(text, object_pairs_hook=_without_duplicates)
    except json.JSONDecodeError as error:
        raise FileError(f"{name}:{error.lineno}: is not JSON: {error.msg}") from None
    except ValueError as error:
        raise FileError(f"{name}: {error}") from None
    except RecursionError:
        raise FileError(f"{name}: is nested too deeply") from None
    return content


def _check_aliases(name: str, content: Any, length: int) -> None:
    """A few lines of aliases of aliases can stand for more than any memory holds, or for themselves."""
    most = MOST_TIMES_EXPANDED * length
    waiting: list[tuple[Any, int]] = [(content, 0)]
    values = 0
    while waiting:
        value, depth = waiting.pop()
        values += 1
        if values > most or depth > MOST_DEPTH:
            raise FileError(f"{name}: its aliases (*) make far more of it than is written")
        if isinstance(value, dict | list):
            inside = value.values() if isinstance(value, dict) else value
            waiting.extend((item, depth + 1) for item in inside)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f'found duplicate key "{key}"')
        found[key] = value
    return found


class _Constructor(SafeConstructor):
    """Leaves instants as text: the control plane reads them. Merges no more than a file may hold."""

    def flatten_mapping(self, node: Any) -> Any:
        """Merge, unless a few lines of merges of merges would make millions of members."""
        merged = [value for key, value in node.value if key.tag == MERGE]
        parts = [part for value in merged for part in (value.value if isinstance(value, SequenceNode) else [value])]
        for part in parts:
            if isinstance(part, MappingNode):
                self.flatten_mapping(part)  # once: afterwards it holds no merge any more
        if parts and sum(len(part.value) for part in parts) > MOST_MERGED:
            raise MarkedYAMLError(
                problem="its merges (<<) make far more of it than is written", problem_mark=node.start_mark
            )
        return super().flatten_mapping(node)


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: loader.construct_scalar(node))


class _Emitter(Emitter):
    """Keeps double quotes on one line: ruamel folds them so that escapes and spaces are not read as they were."""

    def write_double_quoted(self, text: Any, split: bool = True) -> None:  # noqa: ARG002  # as ruamel calls it
        super().write_double_quoted(text, split=False)


def to_yaml(content: dict[str, Any]) -> str:
    """The file as an export writes it: one line for what is small."""
    yaml = YAML()
    yaml.Emitter = _Emitter
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = io.StringIO()
    yaml.dump(_flowing(content, yaml), out)
    return out.getvalue()


def _flowing(value: Any, yaml: YAML) -> Any:
    if isinstance(value, list):
        sequence = yaml.seq(_flowing(item, yaml) for item in value)
        sequence.fa.set_flow_style()
        return sequence
    if not isinstance(value, dict):
        return _quoted(value)
    mapping = yaml.map()
    for name, item in value.items():
        mapping[_quoted(name)] = _flowing(item, yaml)
    if not any(isinstance(item, dict) and item for item in value.values()) or not value:
        mapping.fa.set_flow_style()
    return mapping


def _quoted(value: Any) -> Any:
    """In quotes, where what is written would not be read as it is: indicators in front, several spaces, and what is not
    printable.
    """
    return DoubleQuotedScalarString(value) if isinstance(value, str) and _WANTS_QUOTES.search(value) else value
