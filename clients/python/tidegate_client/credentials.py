"""What a request says of itself: its API key, its address, and the path by which a framework routes it."""

import re
from collections.abc import Iterable
from urllib.parse import quote

MOST_KEY_LENGTH = 256
_PLAIN = re.compile(r"[A-Za-z0-9/:@!$&'()*+,;=._~-]*")


class RefusedKeyError(ValueError):
    """Whose request it is cannot be told: to be refused with 401, whatever the limits; ``error`` names the reason."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


def key_in(headers: Iterable[tuple[str, str]]) -> str | None:
    """The key in ``X-API-Key`` or in ``Authorization: Bearer``; ``None`` without one.

    Raises ``RefusedKeyError`` for two different ones, as nodes do: one would be counted, and the other served. Servers
    join lines of one name by commas; no key has one.
    """
    keys: set[str] = set()
    for name, value in headers:
        lowered = name.lower()
        if lowered == "x-api-key":
            keys.update(part.strip() for part in value.split(","))
        elif lowered == "authorization":
            for part in value.split(","):
                scheme, _, token = part.strip().partition(" ")
                if scheme.lower() == "bearer":
                    keys.add(token.strip())
    keys.discard("")
    if len(keys) > 1:
        raise RefusedKeyError("ambiguous_api_key", "more than one API key was sent")
    key = keys.pop() if keys else None
    if key is not None and len(key) > MOST_KEY_LENGTH:
        raise RefusedKeyError("malformed_api_key", "the API key is too long")
    return key


def without_zone(address: str | None) -> str | None:
    """A peer's address as nodes take it: that of a link-local one (``fe80::1%eth0``) names an interface of ours."""
    return address.partition("%")[0] if address else None


def encoded_path(path: str) -> str:
    """A path as frameworks route by it, decoded, so written that a node finds the same segments.

    Neither form of the request itself will do. Of the decoded one a node would read ``?`` and ``#`` as its end, so that
    ``/health%3F/export`` were ``/health``; and the original one may hold ``%2F``, which is a slash to the framework and
    none to the node.
    """
    return path if _PLAIN.fullmatch(path) else quote(path, safe="/:@!$&'()*+,;=._~-", errors="replace")
