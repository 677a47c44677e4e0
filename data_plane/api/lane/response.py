"""Response bytes. Status line and Date are made once a second, not once a response."""

from email.utils import formatdate
from http import HTTPStatus

_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class ResponseBuilder:
    """Builds complete HTTP/1.1 responses with ``Date``, ``Content-Length`` and ``Connection``."""

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

    def build(self, status: int, headers: bytes, body: bytes) -> bytes:
        """The common case: an HTTP/1.1 connection that stays open. ``headers`` are whole lines, CRLF included."""
        beginning = self._beginnings.get(status) or self._begin(status)
        return b"%b%bcontent-length: %d\r\n\r\n%b" % (beginning, headers, len(body), body)

    def build_special(
        self, status: int, headers: bytes, body: bytes, *, close: bool, old: bool, bodiless: bool
    ) -> bytes:
        """Every other case: the last response of a connection, HTTP/1.0 (``old``), an answer to HEAD (``bodiless``)."""
        if close:
            headers += b"connection: close\r\n"
        elif old:
            headers += b"connection: keep-alive\r\n"
        response = self.build(status, headers, body)
        return response[: len(response) - len(body)] if bodiless else response

    def _begin(self, status: int) -> bytes:
        phrase = _PHRASES.get(status, "").encode()
        beginning = self._beginnings[status] = b"HTTP/1.1 %d %b\r\ndate: %b\r\n" % (status, phrase, self._date)
        return beginning
