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
    """The template of one ``LimitSet`` whose ``template`` is usable."""

    __slots__ = ("_of_http", "_shown", "_states", "_status", "_whole")

    def __init__(self, limit_set: LimitSet, of_http: ResponseTemplate) -> None:
        self._of_http = of_http
        self._shown = of_http.shown
        lines = dict(line.split(b": ", 1) for line in of_http.headers.split(b"\r\n") if line)
        self._states = lines[b"ratelimit"]
        limit = current_limit(limit_set.limits[limit_set.headline])
        whole_limit = limit.SerializeToString()
        self._status = b"\x08%c\x12%b%b" % (OK, varint(len(whole_limit)), whole_limit)
        said = (
            RateLimitResponse(overall_code=OK).SerializeToString().replace(b"%", b"%%") + b"\x12%b%b",
            _header(b"x-ratelimit-limit", lines[b"x-ratelimit-limit"]),
            _blank_header(b"x-ratelimit-remaining"),
            _blank_header(b"x-ratelimit-reset"),
            _header(b"ratelimit-policy", lines[b"ratelimit-policy"]),
            b"\x1a%b" + _key(b"ratelimit") + b"%b%b",
        )
        self._whole = b"".join(said)

    def filled(self, own: Sequence[int], now_us: int) -> bytes:
        """The message; ``own`` are the figures of all limits, ``now_us`` is the node's clock."""
        figures = self._of_http.header_figures(own, now_us)
        shown = self._shown
        left = own[shown]
        left = min(left, MAX_UINT32)
        seconds = varint((own[shown + 1] + 999_999) // 1_000_000)
        # protobuf omits zeros
        reset = b"\x22%c\x08%b" % (1 + len(seconds), seconds) if seconds != b"\0" else b"\x22\0"
        status = b"%b\x18%b%b" % (self._status, varint(left), reset) if left else self._status + reset
        remaining, reset_at = b"%d" % figures[0], b"%d" % figures[1]
        states = self._states % figures[2:]
        length = varint(len(states))
        return self._whole % (
            varint(len(status)), status,
            _REMAINING + len(remaining), len(remaining), remaining,
            _RESET + len(reset_at), len(reset_at), reset_at,
            varint(_STATES + len(length) + len(states)), length, states,
        )  # fmt: skip


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


def _header(name: bytes, value: bytes) -> bytes:
    whole = HeaderValue(key=name.decode(), value=value.decode()).SerializeToString()
    return (b"\x1a%b%b" % (varint(len(whole)), whole)).replace(b"%", b"%%")


def _key(name: bytes) -> bytes:
    """A header's name, and the tag of its value."""
    return b"\x0a%c%b\x12" % (len(name), name)


def _blank_header(name: bytes) -> bytes:
    """A header with placeholders for both lengths and a value of less than 128 bytes."""
    return b"\x1a%c" + _key(name) + b"%c%b"


_REMAINING: Final = len(_key(b"x-ratelimit-remaining")) + 1
_RESET: Final = len(_key(b"x-ratelimit-reset")) + 1
_STATES: Final = len(_key(b"ratelimit"))
