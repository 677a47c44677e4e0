"""A chunked body (RFC 9112, section 7.1), read as it comes in. Extensions and trailers are checked, then dropped."""

import re
from collections.abc import Callable

from tidegate.http_front.responses import Refusal

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})((?:[ \t]*+;[\t\x20-\x7e\x80-\xff]*+)?)")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[^\x00-\x08\x0a-\x1f\x7f]*+")
_LINE_BYTES = 512
_DROPPED_BYTES = 4096
_FRAMING_BYTES = 5
"""The least that stands around a chunk: its size and two ends of line."""

_AT_SIZE, _IN_DATA, _AFTER_DATA, _IN_TRAILERS = range(4)


class ChunkedBody:
    """Collects a body of at most ``limit`` bytes; ``complete`` says that its last chunk and trailers are in.

    ``body`` may be emptied at any time, by who reads it as it comes. ``too_much`` makes the refusal of one that is too
    long.
    """

    __slots__ = ("_announced", "_dropped", "_left", "_limit", "_state", "_too_much", "body", "complete")

    def __init__(self, limit: int, too_much: Callable[[int, str], Refusal] = Refusal) -> None:
        self.body = bytearray()
        self.complete = False
        self._limit = limit
        self._too_much = too_much
        self._left = 0
        self._announced = self._dropped = 0
        self._state = _AT_SIZE

    def feed(self, data: bytes, start: int) -> int:
        """Take what is there from ``start``; returns where it stopped. The rest must be fed again with what follows."""
        while not self.complete:
            if self._state == _IN_DATA:
                part = data[start : start + self._left]
                self.body += part
                start += len(part)
                self._left -= len(part)
                if self._left:
                    return start
                self._state = _AFTER_DATA
            end = data.find(b"\r\n", start, start + _LINE_BYTES)
            if end < 0:
                if len(data) - start >= _LINE_BYTES or b"\n" in data[start:] or b"\r" in data[start:-1]:
                    raise Refusal(400, "A line of the chunked body is too long or doesn't end with CR LF.")
                return start
            self._line(data[start:end])
            start = end + 2
        return start

    def _line(self, line: bytes) -> None:
        if self._state == _AFTER_DATA:
            if line:
                raise Refusal(400, "A chunk is longer than it says.")
            self._state = _AT_SIZE
        elif self._state == _AT_SIZE:
            self._size(line)
        elif line:
            self._drop(len(line))
            if not _TRAILER.fullmatch(line):
                raise Refusal(400, "A trailer field is not: name, colon, value.")
        else:
            self.complete = True

    def _size(self, line: bytes) -> None:
        found = _SIZE.fullmatch(line)
        if found is None:
            raise Refusal(400, "The size of a chunk is not a hexadecimal number.")
        self._left = int(found[1], 16)
        # to read a chunk of one byte takes as long as one of thousands
        self._drop(len(found[2]) + max(0, _FRAMING_BYTES - self._left))
        self._announced += self._left
        if self._announced > self._limit:
            raise self._too_much(413, f"The body is longer than {self._limit} bytes.")
        self._state = _IN_DATA if self._left else _IN_TRAILERS

    def _drop(self, size: int) -> None:
        self._dropped += size
        if self._dropped > _DROPPED_BYTES:
            raise self._too_much(
                431, f"Chunks are tiny, or extensions and trailers longer than {_DROPPED_BYTES} bytes."
            )
