"""What the lane hands requests to. The door knows limits and JSON; the lane knows HTTP and nothing else."""

from typing import Any, Protocol

from data_plane.api.lane.head import Fields, Head


class Asker(Protocol):
    """The connection that an exchange belongs to, as the exchange sees it."""

    peer: str | None

    def answer(self, exchange: "Exchange", status: int, headers: bytes, body: bytes) -> None:
        """Send the answer when its turn has come."""
        ...

    def answer_ok(self, exchange: "Exchange", headers: bytes, body: bytes) -> None:
        """The same with 200."""
        ...


class Exchange:
    """One request being answered. ``head`` is the same object when a client repeats a head byte for byte, so what a
    door derives from it may be kept with it (compare with ``is``).

    The lane makes it without arguments and fills it in: a door may have ``exchange_types`` of its own, a subclass for
    each route (check, batch, authorize), with room for what the door has to remember meanwhile.
    """

    __slots__ = ("asker", "body", "head", "waiting")

    asker: Asker | None
    head: Head
    body: bytes
    waiting: tuple[int, bytes, bytes] | None
    """The answer, while earlier requests of the connection have none yet (the lane's own)."""

    @property
    def method(self) -> bytes:
        """The method as sent, such as ``b"GET"``; for ``/v1/authorize`` any token."""
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
        ``date``, ``content-length`` and ``connection``, which the lane adds; a body for HEAD is left out by the lane.
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


def new_exchange(kind: type[Exchange], asker: Asker, head: Head, body: bytes) -> Exchange:
    """An exchange without an answer."""
    exchange = kind()
    exchange.asker = asker
    exchange.head = head
    exchange.body = body
    exchange.waiting = None
    return exchange


class Door(Protocol):
    """What it is handed is an ``Exchange``, or of its own type where it has ``exchange_types``.

    Each method calls ``exchange.respond`` exactly once, at once or later. It should not raise: the lane answers 500 and
    logs if it does. What isn't answered holds back later requests of its connection, and a graceful stop.
    """

    def check(self, exchange: Any, /) -> None:
        """``POST /v1/check``; the body has at most 64 KiB."""
        ...

    def check_batch(self, exchange: Any, /) -> None:
        """``POST /v1/check/batch``; the body has at most 1 MiB."""
        ...

    def authorize(self, exchange: Any, /) -> None:
        """Any method on ``/v1/authorize`` (with or without a query) and on ``/v1/authorize/{path}``."""
        ...
