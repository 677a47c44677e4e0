"""Heads and bodies of requests, out of the bytes of one connection as they come."""

from functools import partial
from typing import TYPE_CHECKING

from tidegate.http_front.chunked import ChunkedBody
from tidegate.http_front.exchange import ELSEWHERE, NO_HEAD, Head
from tidegate.http_front.head import HeadParser
from tidegate.http_front.responses import Refusal

if TYPE_CHECKING:
    from tidegate.http_front.app_request import AppRequest

_REMEMBERED_BYTES = 2048


class RequestReader:
    """``take`` what came, then ``read`` while there is ``data``. The application takes its bodies as they come.

    All that reads may raise ``Refusal``.
    """

    __slots__ = (
        "_chunks", "_head_start", "_heads", "_known_head", "_known_raw", "_need", "_start", "awaits_continue", "data",
        "head", "unread",
    )  # fmt: skip

    def __init__(self, heads: HeadParser) -> None:
        self._heads = heads
        self.unread = bytearray()
        """What has come and is kept for the next ``take``."""
        self._need = 0
        """How long it must be to be read again: for a body, or for a long head that is not whole."""
        self.head: Head | None = None
        """The head whose body is awaited."""
        self.awaits_continue = False
        """Whether its client waits for 100 Continue before it sends the body."""
        self._chunks: ChunkedBody | None = None
        """What has come of that body, if it is chunked."""
        self.data = b""
        """What is being read, from ``_start`` on; empty if nothing is left."""
        self._start = self._head_start = 0
        self._known_raw = b""
        self._known_head = NO_HEAD
        """The last head that was parsed: the next one is mostly the same."""

    def take(self, data: bytes) -> None:
        """Have ``data`` read after what is unread, unless that would still be too little."""
        unread = self.unread
        if unread:
            known = len(unread)
            unread += data
            if len(unread) < self._need and (self.head or unread.find(b"\r\n\r\n", max(0, known - 3)) < 0):
                return
            data = bytes(unread)
            unread.clear()
        self.data = data
        self._start = self._need = 0

    def take_rest(self) -> None:
        """Have what is unread read again, as more may have been put to it."""
        self.data = bytes(self.unread)
        self._start = self._need = 0
        self.unread.clear()

    def read(self) -> tuple[Head, bytes] | None:
        """The next head, and its body unless that is the application's; ``None`` if they have not come whole."""
        data, start, head = self.data, self._start, self.head
        if head is None:
            end = data.find(b"\r\n\r\n", start) + 4
            if end < 4:
                self.keep_rest()
                self._need = self._heads.check_beginning(bytes(self.unread))
                return None
            raw = data[start:end]
            head = self._known_head if raw == self._known_raw else self._parse(raw)
            if head.route == ELSEWHERE:
                self._head_start = start
                self._start = end
                return head, b""
            if head.expects_continue:
                self.awaits_continue = end == len(data)
            start = end
        if head.chunked:
            body, end = self._read_chunks(head, start)
        else:
            end = start + head.length
            body = data[start:end] if end <= len(data) else None
        if body is None:
            self.head = head
            self._start = end if head.chunked else start
            self._need = head.length
            self.keep_rest()
            return None
        self.head = None
        self.awaits_continue = False
        if end < len(data):
            self._start = end
        else:
            self.data = b""
        return head, body

    def put_back(self) -> None:
        """Have the application's head that was just read be read again."""
        self._start = self._head_start

    def hand_over(self, app: "AppRequest") -> None:
        """Have the application's request take what is there of its body."""
        self._start = app.take(self.data, self._start)
        self.keep_rest()

    def keep_rest(self) -> None:
        """Keep what is not read for the next ``take``."""
        self.unread += self.data[self._start :]
        self.data = b""

    def clear(self) -> None:
        """Forget what has come and is not read."""
        self.unread.clear()
        self.data = b""
        self.head = self._chunks = None
        self.awaits_continue = False

    def forget_head(self) -> None:
        """Parse the next head, whether it is known or not: what it means has changed."""
        self._known_raw = b""

    @property
    def held_bytes(self) -> int:
        """What it keeps of a request that has not come whole."""
        return len(self.unread) + (0 if self._chunks is None else len(self._chunks.body))

    def _parse(self, raw: bytes) -> Head:
        if raw.startswith(b"\r\n"):  # one empty line before a request is ignored (RFC 9112, section 2.2)
            raw = raw[2:]
        try:
            head = self._heads.parse(raw)
        except Refusal as refusal:
            refusal.bodiless = raw.startswith(b"HEAD ")
            raise
        if len(raw) <= _REMEMBERED_BYTES:
            self._known_raw = raw
            self._known_head = head
        return head

    def _read_chunks(self, head: Head, start: int) -> tuple[bytes | None, int]:
        """The body if it is whole, and where it stopped."""
        heads = self._heads
        chunks = self._chunks or ChunkedBody(heads.body_bytes(head), partial(heads.too_much, head.target))
        end = chunks.feed(self.data, start)
        self._chunks = None if chunks.complete else chunks
        return bytes(chunks.body) if chunks.complete else None, end
