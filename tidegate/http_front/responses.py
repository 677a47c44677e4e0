"""Response bytes: beginnings that are made once a second, refusals as RFC 9457 problems, and one write a turn."""

import asyncio
import json
from email.utils import formatdate
from http import HTTPStatus

PROBLEM_HEADERS = b"content-type: application/problem+json\r\ncache-control: no-store\r\n"
_OUTBOX_BYTES = 64 * 1024
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Refusal(Exception):  # noqa: N818 - a refusal is an answer, not a failure of ours
    """The request can't be served, and its connection is closed: its framing is in doubt.

    ``detail`` is for the person who wrote the client and echoes nothing of what was sent.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.bodiless = False
        """The request was HEAD: the answer must have no body."""


def problem(status: int, detail: str) -> bytes:
    """The body of a problem without a type of its own."""
    return json.dumps({"title": HTTPStatus(status).phrase, "status": status, "detail": detail}).encode()


class ResponseBuilder:
    """Builds HTTP/1.1 responses with ``Date``, ``Content-Length`` and ``Connection``."""

    def __init__(self) -> None:
        self._date = b""
        self._beginnings: dict[int, bytes] = {}
        self.ok = self._begin(200)
        """How every 200 begins at the moment."""

    def set_date(self, epoch_s: float) -> None:
        """Call about once a second."""
        self._date = formatdate(epoch_s, usegmt=True).encode()
        self._beginnings.clear()
        self.ok = self._begin(200)

    def begin(self, status: int) -> bytes:
        """The status line and the date."""
        return self._beginnings.get(status) or self._begin(status)

    def build(self, status: int, headers: bytes, body: bytes) -> bytes:
        """The common case: an HTTP/1.1 connection that stays open. ``headers`` are whole lines, CRLF included."""
        return b"%b%bcontent-length: %d\r\n\r\n%b" % (self.begin(status), headers, len(body), body)

    def build_special(
        self, status: int, headers: bytes, body: bytes, *, close: bool, old: bool, bodiless: bool
    ) -> bytes:
        """Every other case: the last response of a connection, HTTP/1.0 (``old``), an answer to HEAD (``bodiless``)."""
        response = self.build(status, headers + persistence(close=close, old=old), body)
        return response[: len(response) - len(body)] if bodiless else response

    def _begin(self, status: int) -> bytes:
        phrase = _PHRASES.get(status, "").encode()
        beginning = self._beginnings[status] = b"HTTP/1.1 %d %b\r\ndate: %b\r\n" % (status, phrase, self._date)
        return beginning


def persistence(*, close: bool, old: bool) -> bytes:
    """The ``Connection`` header line, where one is needed."""
    return b"connection: close\r\n" if close else b"connection: keep-alive\r\n" if old else b""


class Outbox:
    """Answers of one turn of the event loop, sent back to back. Who writes past it or closes a transport flushes it.

    A write wakes whoever waits for it. Sent one by one between decisions, each answer would wake a client that drains
    it and sleeps again; sent together they cost a tenth less of the node's time.
    """

    def __init__(self) -> None:
        self._writes: list[tuple[asyncio.WriteTransport, bytes]] = []
        self._bytes = 0

    def put(self, loop: asyncio.AbstractEventLoop, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Send ``data`` at the end of this turn, or now when too much is waiting: a transport's own backpressure only
        begins with what it was given.
        """
        writes = self._writes
        writes.append((transport, data))
        self._bytes += len(data)
        if self._bytes > _OUTBOX_BYTES:
            self.flush()
        elif len(writes) == 1:
            loop.call_soon(self.flush)

    def flush(self) -> None:
        """Send everything now."""
        writes, self._writes, self._bytes = self._writes, [], 0
        for transport, data in writes:
            if not transport.is_closing():
                transport.write(data)
