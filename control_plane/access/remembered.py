"""Credentials that were found a moment ago: 500 nodes that answer at once need not ask the database 500 times."""

from collections import OrderedDict

from control_plane.access.principals import Principal

MAX_REMEMBERED = 10_000


class Remembered:
    """Who a credential's hash belongs to, for ``keep_s`` at most: so long may a revoked one still be let in."""

    def __init__(self, keep_s: float) -> None:
        self._keep_s = keep_s
        self._found: OrderedDict[str, tuple[float, Principal]] = OrderedDict()

    def get(self, sha256: str, now_s: float) -> Principal | None:
        """Who it is, if that was found within ``keep_s``."""
        found = self._found.get(sha256)
        return found[1] if found is not None and now_s - found[0] < self._keep_s else None

    def put(self, sha256: str, principal: Principal, now_s: float) -> None:
        """It was found."""
        self._found[sha256] = (now_s, principal)
        self._found.move_to_end(sha256)
        while len(self._found) > MAX_REMEMBERED:
            self._found.popitem(last=False)
