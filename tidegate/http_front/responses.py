"""Response bytes: beginnings that are made once a second, and refusals as RFC 9457 problems."""

import json
from email.utils import formatdate
from http import HTTPStatus

PROBLEM_HEADERS = b"content-type: application/problem+json\r\ncache-control: no-store\r\n"
_RENAMED = {413: "Content Too Large", 422: "Unprocessable Content"}
TITLES = {status.value: status.phrase for status in HTTPStatus} | _RENAMED
"""By status the title of a problem without a type of its own (RFC 9457, 4.2.1): the phrase of RFC 9110, section 15."""


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
    return json.dumps({"title": TITLES[status], "status": status, "detail": detail}).encode()


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
        phrase = TITLES.get(status, "").encode()
        beginning = self._beginnings[status] = b"HTTP/1.1 %d %b\r\ndate: %b\r\n" % (status, phrase, self._date)
        return beginning


def persistence(*, close: bool, old: bool) -> bytes:
    """The ``Connection`` header line, where one is needed."""
    return b"connection: close\r\n" if close else b"connection: keep-alive\r\n" if old else b""
