"""A request's head: what is accepted as HTTP/1.1 (RFC 9112), and where the body ends.

The grammar is a whitelist, stricter than llhttp's (a differential fuzz test holds that whatever passes here means the
same there): CRLF only, one space in the request line, no folding, no control characters, one Host, one way to frame a
body. Two parties that read a head differently are what request smuggling is made of.
"""

import re
from typing import NamedTuple

from tidegate.http_front.exchange import ELSEWHERE, FastPath, Field, Fields, Head
from tidegate.http_front.limits import FrontLimits
from tidegate.http_front.responses import Refusal

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([^\x00-\x20\x7f]++) HTTP/([0-9]\.[0-9])")
_COMMON_LINE = re.compile(rb"(" + _TOKEN + rb") (/[^\x00-\x20\x7f]*+) HTTP/1\.1").fullmatch
"""A path, and HTTP/1.1: what nearly every request line is."""
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*+([^\x00-\x08\x0a-\x1f\x7f]*+)")
_APP_TARGET = re.compile(rb"[\x21\x22\x24-\x7e]++")
_HOST = re.compile(rb"[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]]*+")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_REMEMBERED = 2048
_REMEMBERED_BYTES = 256
_REMEMBERED_HEAD_BYTES = 1024
_TEXT = bytes([9, *range(32, 127), *range(128, 256)])
_CHEAP_BYTES = 512
"""A request line this short is checked again with every packet until the head is whole; a longer one only then."""
_CHEAP_HEAD_BYTES = 4096
"""The beginning of a head this long is looked at with every packet; a longer one when it has grown by an eighth."""
_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"})
_LISTS = frozenset({b"connection", b"expect"})


class Framing(NamedTuple):
    """Where the body ends, and what happens to the connection."""

    length: int
    chunked: bool
    keep_alive: bool
    expects_continue: bool


class HeadParser:
    """Parses heads. Remembers header lines and what they mean together: gateways send the same over and over.

    What is remembered was understood byte for byte, so remembering changes the time that a head takes, not its meaning.
    """

    def __init__(self, limits: FrontLimits, fast_path: FastPath) -> None:
        self._limits = limits
        self._find = fast_path.find
        self._too_much_status = fast_path.too_much_status
        self._body_bytes = (*(route.body_bytes for route in fast_path.routes), limits.body_bytes)
        """By route; the last, at ``ELSEWHERE``, is the application's."""
        self._lines = _Lines()
        self.common: dict[bytes, Head] = {}
        """Heads of the first route that are common, by their bytes: the next request has the same."""
        self._framings: tuple[dict[Fields, Framing], dict[Fields, Framing]] = ({}, {})
        """By the fields that frame a request; the first for HTTP/1.1, the second for HTTP/1.0."""
        self._last = False

    def be_last(self) -> None:
        """From now on every request is read as its connection's last one."""
        self._last = True
        self.common.clear()

    def parse(self, raw: bytes) -> Head:
        """Read a whole head, blank line included; raises ``Refusal``."""
        lines = raw[:-4].split(b"\r\n")
        line = lines[0]
        common = _COMMON_LINE(line)
        if common is not None and len(line) <= self._limits.target_bytes:
            method, target = common.groups()
            old = False
        else:
            method, target, version = self.request_line(line)
            old = version == b"1.0"
        if len(raw) > self._limits.head_bytes:
            raise self.too_much(target, 431, f"The head is longer than {self._limits.head_bytes} bytes.")
        if len(lines) - 1 > self._limits.header_fields:
            raise self.too_much(target, 431, f"More than {self._limits.header_fields} header fields.")
        fields = tuple(map(self._lines.__getitem__, lines[1:]))
        framing_fields = tuple([field for field in fields if field[0] in _FRAMING])
        framing = self._framings[old].get(framing_fields) or self._framing(framing_fields, old=old)
        length = framing.length
        route = self._find(method, target)
        if route == ELSEWHERE and not _APP_TARGET.fullmatch(target):
            raise Refusal(400, "The target has a # or a byte that is not ASCII.")
        if length > self._body_bytes[route]:
            raise self.too_much(target, 413, f"The body is longer than {self._body_bytes[route]} bytes.")
        stays = framing.keep_alive and not self._last
        head = Head(
            method,
            target,
            fields,
            route,
            length,
            framing.chunked,
            stays,
            old,
            framing.expects_continue,
            method == b"HEAD",
            stays and not (framing.chunked or old or framing.expects_continue or method == b"HEAD"),
        )
        if route == 0 and head.common and len(raw) <= _REMEMBERED_HEAD_BYTES:
            if len(self.common) >= _REMEMBERED:
                self.common.clear()
            self.common[raw] = head
        return head

    def body_bytes(self, head: Head) -> int:
        """The longest body, in bytes, that the route of ``head`` takes."""
        return self._body_bytes[head.route]

    def request_line(self, line: bytes) -> tuple[bytes, bytes, bytes]:
        """Method, target and version (``1.0`` or ``1.1``) of a request line without its CRLF."""
        found = _REQUEST_LINE.fullmatch(line)
        if found is None:
            raise Refusal(400, "The request line is not: method, space, target, space, HTTP/1.1.")
        method, target, version = found.groups()
        if version not in (b"1.1", b"1.0"):
            raise Refusal(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        if len(target) > self._limits.target_bytes:
            raise self.too_much(target, 414, f"The target is longer than {self._limits.target_bytes} bytes.")
        if target[:1] != b"/" and not _is_unusual_target(method, target):
            raise Refusal(400, "The target must be a path that begins with /.")
        return method, target, version

    def check_beginning(self, data: bytes) -> int:
        """Refuse the beginning of a head that can't become one, or is too long already; no CRLF CRLF is in it.

        Returns how long it has to be to be checked again, unless it is whole by then.
        """
        if data.translate(None, _TEXT).strip(b"\r\n"):
            raise Refusal(400, "The head has a control character.")
        pairs = data.count(b"\r\n")
        if data.count(b"\n") != pairs or data.count(b"\r", 0, -1) > pairs:
            raise Refusal(400, "Lines of the head must end with CR LF.")
        first = data.find(b"\r\n", 1)
        if first < 0 and len(data) > self._limits.target_bytes + 64:
            target = data.lstrip(b"\r\n").partition(b" ")[2]
            raise self.too_much(target, 414, f"The target is longer than {self._limits.target_bytes} bytes.")
        too_long = len(data) > self._limits.head_bytes
        if first > 0 and (too_long or first <= _CHEAP_BYTES):
            _, target, _ = self.request_line(data[:first].removeprefix(b"\r\n"))
            if too_long:
                raise self.too_much(target, 431, f"The head is longer than {self._limits.head_bytes} bytes.")
        if too_long:
            raise Refusal(431, f"The head is longer than {self._limits.head_bytes} bytes.")
        size = len(data)
        return min(size + size // 8, self._limits.head_bytes + 1) if size > _CHEAP_HEAD_BYTES else 0

    def too_much(self, target: bytes, status: int, detail: str) -> Refusal:
        """The refusal of what is too long; the fast path chooses its status."""
        return Refusal(self._too_much_status(status, target), detail)

    def _framing(self, fields: Fields, *, old: bool) -> Framing:
        framing = _read_framing(fields, old=old)
        if sum(len(value) for _, value in fields) <= _REMEMBERED_BYTES:
            framings = self._framings[old]
            if len(framings) >= _REMEMBERED:
                framings.clear()
            framings[fields] = framing
        return framing


class _Lines(dict[bytes, Field]):
    """Header lines that were understood; ``lines[line]`` reads those that are new, or raises ``Refusal``."""

    def __missing__(self, line: bytes) -> Field:
        found = _FIELD.fullmatch(line)
        if found is None:
            if line[:1] in (b" ", b"\t"):
                raise Refusal(400, "A header field is folded over lines.")
            raise Refusal(400, "A header field is not: name, colon, value, without control characters.")
        field = (found[1].lower(), found[2].rstrip(b" \t"))
        if len(line) <= _REMEMBERED_BYTES:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[line] = field
        return field


def _read_framing(fields: Fields, *, old: bool) -> Framing:
    values: dict[bytes, bytes] = {}
    for name, value in fields:
        if name not in values:
            values[name] = value
        elif name in _LISTS:
            values[name] += b"," + value
        else:
            raise Refusal(400, f"More than one {name.decode()} header field.")
    length, chunked = _body_framing(values, old=old)
    _check_host(values.get(b"host"), old=old)
    expects_continue = _expects_continue(values.get(b"expect")) and not old
    return Framing(length, chunked, _keeps_alive(values.get(b"connection"), old=old), expects_continue)


def _is_unusual_target(method: bytes, target: bytes) -> bool:
    """Whether the target is in one of the forms that are not a path: absolute, or * for OPTIONS."""
    if method == b"OPTIONS" and target == b"*":
        return True
    return target[:8].lower().startswith((b"http://", b"https://"))


def _body_framing(framing: dict[bytes, bytes], *, old: bool) -> tuple[int, bool]:
    """The body's length, and whether it comes in chunks instead (RFC 9112, section 6.3)."""
    length = framing.get(b"content-length")
    coding = framing.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:
            raise Refusal(400, "Transfer-Encoding and Content-Length together.")
        if old:
            raise Refusal(400, "HTTP/1.0 has no Transfer-Encoding.")
        if coding.lower() != b"chunked":
            raise Refusal(501, "The only transfer coding here is chunked.")
        return 0, True
    if length is None:
        return 0, False
    if not _LENGTH.fullmatch(length):
        raise Refusal(400, "Content-Length is not a number.")
    return int(length), False


def _check_host(host: bytes | None, *, old: bool) -> None:
    if host is None:
        if not old:
            raise Refusal(400, "The Host header field is missing.")
    elif not _HOST.fullmatch(host):
        raise Refusal(400, "The Host header field is not a host.")


def _keeps_alive(connection: bytes | None, *, old: bool) -> bool:
    if connection is None:
        return not old
    options = {option.strip(b" \t").lower() for option in connection.split(b",")}
    if b"close" in options:
        return False
    return not old or b"keep-alive" in options


def _expects_continue(expect: bytes | None) -> bool:
    if expect is None:
        return False
    if expect.lower() != b"100-continue":
        raise Refusal(417, "The only expectation met here is 100-continue.")
    return True
