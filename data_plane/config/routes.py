"""The route table: the endpoint of a method and a path. Unknown paths share one endpoint, so subjects stay bounded."""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from tidegate.contract.config import Endpoint

UNMATCHED: Final = Endpoint(endpoint="_unmatched", method="*", path="*")
PREFLIGHT: Final = Endpoint(endpoint="_preflight", method="OPTIONS", path="*", exempt=True)
NO_ENDPOINT: Final = Endpoint(endpoint="_unknown", method="*", path="*", exempt=True)
"""Stands for an unknown endpoint name where no error can be returned."""
MAX_PATH_LENGTH: Final = 8_192
_MAX_SEEN: Final = 8_192
_LONGEST_SEEN: Final = 256
"""Matches are cached: at most this many, of methods and paths up to this length together."""
_SUSPICIOUS: Final = re.compile(r"[%\\\0;]|//|/\.|/$")
"""Characters that need decoding or a check for ambiguity; nearly all paths have none."""
_AMBIGUOUS: Final = frozenset({"", ".", ".."})
_RESOLVABLE: Final = frozenset("/\\\0")


class _Node:
    __slots__ = ("by_method", "children", "parameter")

    def __init__(self) -> None:
        self.children: dict[str, _Node] = {}
        self.parameter: _Node | None = None
        self.by_method: dict[str, Endpoint] = {}


class RouteTable:
    """A tree over path segments; a literal segment wins over a ``{parameter}``."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._root = _Node()
        self.by_name: dict[str, Endpoint] = {}
        self._seen: dict[tuple[str, str], Endpoint] = {}
        for endpoint in endpoints:
            self.by_name[endpoint.endpoint] = endpoint
            node = self._root
            for segment in endpoint.path.strip("/").split("/") if endpoint.path != "/" else []:
                if segment.startswith("{"):
                    node.parameter = node.parameter or _Node()
                    node = node.parameter
                else:
                    node = node.children.setdefault(segment, _Node())
            node.by_method[endpoint.method.upper()] = endpoint

    def match(self, method: str, path: str) -> Endpoint:
        """The endpoint of a request. Query and fragment are ignored, and the method's case; HEAD falls back to GET.

        Percent-encoding is undone by segment, as backends do. Dot segments, empty segments, encoded slashes and
        backslashes match nothing: a backend may resolve them otherwise than we would, so they are ``_unmatched``. So is
        a ``;`` where it decides: some backends drop it with what follows (RFC 3986, section 3.3), and then see a dot
        segment, or another endpoint.
        """
        found = self._seen.get((method, path))
        if found is None:
            found = self._match(method, path)
            if len(self._seen) >= _MAX_SEEN:
                self._seen.clear()
            if len(method) + len(path) <= _LONGEST_SEEN:
                self._seen[method, path] = found
        return found

    def _match(self, method: str, path: str) -> Endpoint:
        if not path.startswith("/") or len(path) > MAX_PATH_LENGTH:
            return UNMATCHED
        method = method.upper()  # some backends do the same
        if "?" in path or "#" in path:
            path = path.partition("?")[0].partition("#")[0]
        segments = path[1:].split("/") if path != "/" else []
        if _SUSPICIOUS.search(path) and path != "/":
            try:
                segments = [unquote(segment, errors="strict") for segment in segments]
            except UnicodeDecodeError:
                return UNMATCHED
            if any(map(_is_ambiguous, segments)):
                return UNMATCHED
        found = _find(self._root, segments, 0, method)
        if found is None and method == "HEAD":
            found = _find(self._root, segments, 0, "GET")
        if found is not None:
            return found
        return PREFLIGHT if method == "OPTIONS" else UNMATCHED


def _is_ambiguous(segment: str) -> bool:
    return segment.partition(";")[0] in _AMBIGUOUS or not _RESOLVABLE.isdisjoint(segment)


def _find(node: _Node, segments: list[str], at: int, method: str) -> Endpoint | None:
    while at < len(segments):
        literal, parameter = node.children.get(segments[at]), node.parameter
        at += 1
        if literal is not None and parameter is not None:  # the only fork: the literal first
            return _find(literal, segments, at, method) or _find(parameter, segments, at, method)
        if literal is None:
            name, semicolon, _ = segments[at - 1].partition(";")
            if parameter is None or (semicolon and name in node.children):
                return None
            literal = parameter
        node = literal
    return node.by_method.get(method) or node.by_method.get("*")
