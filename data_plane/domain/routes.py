"""The route table: which endpoint a method and path belong to. Unbounded paths never make unbounded subjects."""

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from contract.config import Endpoint

UNMATCHED: Final = Endpoint(endpoint="_unmatched", method="*", path="*")
PREFLIGHT: Final = Endpoint(endpoint="_preflight", method="OPTIONS", path="*", exempt=True)
MAX_PATH_LENGTH: Final = 8_192
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
        """The endpoint of a request. Query and fragment are ignored; HEAD falls back to GET.

        Percent-encoding is undone by segment, as backends do. Dot segments, empty segments, encoded slashes and
        backslashes match nothing: a backend may resolve them otherwise than we would, so they are ``_unmatched``.
        """
        path = path.partition("?")[0].partition("#")[0]
        if not path.startswith("/") or len(path) > MAX_PATH_LENGTH:
            return UNMATCHED
        segments = path[1:].split("/") if path != "/" else []
        if "%" in path:
            try:
                segments = [unquote(segment, errors="strict") for segment in segments]
            except UnicodeDecodeError:
                return UNMATCHED
        if any(segment in _AMBIGUOUS or not _RESOLVABLE.isdisjoint(segment) for segment in segments):
            return UNMATCHED
        found = _find(self._root, segments, 0, method)
        if found is None and method == "HEAD":
            found = _find(self._root, segments, 0, "GET")
        if found is not None:
            return found
        return PREFLIGHT if method == "OPTIONS" else UNMATCHED


def _find(node: _Node, segments: list[str], at: int, method: str) -> Endpoint | None:
    if at == len(segments):
        return node.by_method.get(method) or node.by_method.get("*")
    child = node.children.get(segments[at])
    if child is not None:
        found = _find(child, segments, at + 1, method)
        if found is not None:
            return found
    return _find(node.parameter, segments, at + 1, method) if node.parameter is not None else None
