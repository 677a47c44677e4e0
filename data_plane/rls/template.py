"""The response to a plainly allowed descriptor as a template of bytes, into which figures are filled.

Nearly every answer is of this kind, and building it as messages costs as much as the decision. The careful code
(``answers.py``) writes the same message; ``tests/unit/rls/test_template.py`` compares them.
"""

from collections.abc import Sequence
from typing import Final

from data_plane.config.limit_set import LimitSet
from data_plane.http.response_templates import ResponseTemplate
from data_plane.rls.answers import MAX_UINT32, current_limit
from data_plane.rls.messages import OK, HeaderValue, RateLimitResponse

_SMALL: Final = [bytes((value,)) for value in range(128)]


class AllowedTemplate:
    """The template of one ``LimitSet`` whose ``template`` is usable; it has the header lines of that."""

    __slots__ = ("_headline_at", "_heads", "_of_http", "_status", "_values", "_whole")

    def __init__(self, limit_set: LimitSet, of_http: ResponseTemplate) -> None:
        self._of_http = of_http
        self._headline_at = of_http.headline_at
        limit = current_limit(limit_set.limits[limit_set.headline])
        whole_limit = limit.SerializeToString()
        self._status = b"\x08%c\x12%b%b" % (OK, varint(len(whole_limit)), whole_limit)
        self._whole = RateLimitResponse(overall_code=OK).SerializeToString().replace(b"%", b"%%") + b"\x12%b%b"
        self._heads: list[int] = []
        """Of each line with figures: the bytes before its value's length."""
        values = []
        for line in of_http.headers.splitlines():
            name, value = line.split(b": ", 1)
            if b"%d" not in value:
                whole = HeaderValue(key=name.decode(), value=(value % ()).decode()).SerializeToString()
                self._whole += (b"\x1a%b%b" % (varint(len(whole)), whole)).replace(b"%", b"%%")
            else:
                head = b"\x0a%c%b\x12" % (len(name), name)  # the header's name, and the tag of its value
                self._whole += b"\x1a%b" + head + b"%b%b"
                self._heads.append(len(head))
                values.append(value)
        self._values = b"\n".join(values)

    def filled(self, own: Sequence[int], now_us: int) -> bytes:
        """The message; ``own`` are the figures of all limits, ``now_us`` is the node's clock."""
        figures = self._of_http.header_figures(own, now_us)
        headline_at = self._headline_at
        left = own[headline_at]
        left = min(left, MAX_UINT32)
        seconds = varint((own[headline_at + 1] + 999_999) // 1_000_000)
        # protobuf omits zeros
        reset = b"\x22%c\x08%b" % (1 + len(seconds), seconds) if seconds != b"\0" else b"\x22\0"
        status = b"%b\x18%b%b" % (self._status, varint(left), reset) if left else self._status + reset
        blanks = [varint(len(status)), status]
        for head_bytes, value in zip(self._heads, (self._values % figures).split(b"\n"), strict=True):
            length = varint(len(value))
            blanks += (varint(head_bytes + len(length) + len(value)), length, value)
        message: bytes = self._whole % tuple(blanks)
        return message


def varint(value: int) -> bytes:
    """A number in protobuf's varint encoding."""
    if value < 128:
        return _SMALL[value]
    parts = bytearray()
    while value >= 128:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)
