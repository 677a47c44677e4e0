"""What a front hands requests to: the fast path knows its routes and JSON; the front knows HTTP and nothing else."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

if TYPE_CHECKING:
    from tidegate.http_front.connection import Connection

Field = tuple[bytes, bytes]
Fields = tuple[Field, ...]
ELSEWHERE: Final = -1
"""The route of a request that the application answers."""


class Head(msgspec.Struct, frozen=True, gc=False):
    """A head that was understood. ``target`` is raw; names in ``fields`` are lower-case, values are trimmed."""

    method: bytes
    target: bytes
    fields: Fields
    route: int
    length: int
    chunked: bool
    keep_alive: bool
    old: bool
    """HTTP/1.0: the connection closes, unless the request asks otherwise and the answer says that it stays open."""
    expects_continue: bool
    bodiless: bool
    """HEAD: the answer has the length of a body but not the body."""

    common: bool = False
    """HTTP/1.1 of a client that stays, and a body whose length is known: nothing special is to be done."""


NO_HEAD = Head(
    method=b"",
    target=b"",
    fields=(),
    route=ELSEWHERE,
    length=0,
    chunked=False,
    keep_alive=False,
    old=False,
    expects_continue=False,
    bodiless=False,
)
"""Stands in where a request was refused before it was understood."""


class Exchange:
    """One request being answered. ``head`` is the same object when a client repeats a head byte for byte. So a handler
    may keep what it derives from a head (compare with ``is``).

    The front makes it without arguments and fills it in: a route may have a subclass of its own, with room for what
    its handler has to remember meanwhile.
    """

    __slots__ = ("asker", "body", "head", "waiting")

    asker: "Connection | None"
    """The connection that waits for the answer; ``None`` once it is answered or gone."""
    head: Head
    body: bytes
    waiting: tuple[int, bytes, bytes] | None
    """The answer, while earlier requests of the connection have none yet (the front's own)."""

    @property
    def method(self) -> bytes:
        """The method as sent, such as ``b"GET"``: any token."""
        return self.head.method

    @property
    def path(self) -> bytes:
        """The raw target with its query, undecoded; bytes above 0x7f are possible, blanks and controls are not."""
        return self.head.target

    @property
    def headers(self) -> Fields:
        """Pairs in the order sent, lower-case names, values without surrounding blanks."""
        return self.head.fields

    @property
    def peer(self) -> str | None:
        """The address at the other end of the connection; ``None`` on a Unix socket or once answered."""
        return self.asker.peer if self.asker else None

    def respond(self, status: int, headers: bytes, body: bytes) -> None:
        """Answer, at once or later on the event loop. ``headers`` are whole lines (``name: value\\r\\n``) without
        ``date``, ``content-length`` and ``connection``, which the front adds; so is a body for HEAD left out.
        ``status`` is 200 or more, neither 204 nor 304. Ignored if the client has left or the answer was given.
        """
        asker = self.asker
        if asker is not None:
            self.asker = None
            asker.answer(self, status, headers, body)

    def respond_ok(self, headers: bytes, body: bytes) -> None:
        """As ``respond`` with 200."""
        asker = self.asker
        if asker is not None:
            self.asker = None
            asker.answer_ok(self, headers, body)


def new_exchange(kind: type[Exchange], asker: "Connection", head: Head, body: bytes) -> Exchange:
    """An exchange without an answer."""
    exchange = kind()
    exchange.asker = asker
    exchange.head = head
    exchange.body = body
    exchange.waiting = None
    return exchange


class Route(NamedTuple):
    """One kind of request that the fast path answers; ``exchange_type`` is what ``handle`` is called with.

    ``handle`` has ``exchange.respond`` called exactly once, at once or later. It should not raise: the front answers
    500 and logs if it does. What isn't answered holds back later requests of its connection, and a graceful stop.
    """

    name: str
    body_bytes: int
    """The longest body that it takes."""
    exchange_type: type[Exchange]
    handle: Callable[[Any], None]


class FastPath(Protocol):
    """What is answered without the application."""

    routes: Sequence[Route]
    """The first is the commonest: its heads are remembered whole."""

    def find(self, method: bytes, target: bytes) -> int:
        """The place in ``routes``, or ``ELSEWHERE``."""
        ...

    def too_much_status(self, status: int, target: bytes) -> int:
        """The status of a refusal of something too long, where ``status`` would be usual."""
        ...


class _NoFastPath:
    routes: Sequence[Route] = ()

    def find(self, method: bytes, target: bytes) -> int:
        del method, target
        return ELSEWHERE

    def too_much_status(self, status: int, target: bytes) -> int:
        del target
        return status


NO_FAST_PATH: Final[FastPath] = _NoFastPath()
"""The application answers everything."""
