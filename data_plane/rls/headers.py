"""Header blocks of requests: HPACK (RFC 7541), and what HTTP/2 asks of a request's fields (RFC 9113, section 8).

Decoding in Python costs more than a decision. But clients send the same few blocks over and over, as bytes that mean
the same until the dynamic table changes: those are remembered.
"""

import re
from typing import Any

from hpack import Decoder
from hpack.exceptions import HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from data_plane.rls.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, ConnectionFault
from data_plane.rls.limits import Http2Limits

Fields = list[tuple[bytes, bytes]]
_TABLE_BYTES = 4_096
_FIELD_OVERHEAD = 32
_SIZE_UPDATE, _SIZE_UPDATE_MASK = 0x20, 0xE0
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_NOT_IN_VALUES = re.compile(rb"[\0\r\n]|^[ \t]|[ \t]\Z")
_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path"})
_OF_HTTP_1 = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})


class MalformedError(Exception):
    """The fields are not those of a request: an error of its stream."""


class Head:
    """A request's head. The same object for the same bytes, so a handler may keep what it makes of it in ``meaning``.

    ``answered_early`` is the handler's too: such a request is served before its body has come.
    """

    __slots__ = ("answered_early", "content_length", "fields", "meaning", "method", "path")

    def __init__(self, method: bytes, path: bytes, fields: Fields, content_length: int | None) -> None:
        self.method = method
        self.path = path
        self.fields = fields
        """Without pseudo-header fields: pairs in the order sent, lower-case names."""
        self.content_length = content_length
        self.meaning: Any = None
        self.answered_early = False


class _Table(HeaderTable):
    """A dynamic table that says when it has changed."""

    changed = False

    def add(self, name: bytes, value: bytes) -> None:
        self.changed = True
        super().add(name, value)


class HeaderReader:
    """Reads the header blocks of one connection, in their order."""

    def __init__(self, limits: Http2Limits) -> None:
        self.known: dict[bytes, Head] = {}
        """Heads of blocks that can be read without a decoder, because they neither change the table nor are outdated
        by a change since."""
        self._limits = limits
        self._decoder = Decoder(limits.header_bytes)
        self._decoder.max_allowed_table_size = _TABLE_BYTES
        self._decoder.header_table = self._table = _Table()

    def read(self, block: bytes) -> Head:
        """The head that a block stands for. Raises ``MalformedError`` and ``ConnectionFault``."""
        head = self.known.get(block)
        if head is None:
            fields = self.decode(block)
            head = _head_of(fields)
            self._remember(block, head, fields)
        return head

    def decode(self, block: bytes) -> Fields:
        """The fields of a block, whatever they are. Raises ``ConnectionFault``: the table is out of step then."""
        self._table.changed = bool(block) and block[0] & _SIZE_UPDATE_MASK == _SIZE_UPDATE
        try:
            fields = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError:
            raise ConnectionFault(
                ENHANCE_YOUR_CALM, f"a header list is over {self._limits.header_bytes} bytes"
            ) from None
        except (HPACKError, ValueError, IndexError) as error:
            raise ConnectionFault(COMPRESSION_ERROR, f"a header block cannot be decoded: {type(error).__name__}") from None
        if self._table.changed:
            self.known.clear()
        return fields

    def _remember(self, block: bytes, head: Head, fields: Fields) -> None:
        limits = self._limits
        if self._table.changed or len(block) > limits.remembered_bytes:
            return
        size = sum(len(name) + len(value) + _FIELD_OVERHEAD for name, value in fields)
        if size > 2 * limits.remembered_bytes:  # a short block may name the table's longest field many times
            return
        if len(self.known) >= limits.remembered_blocks:
            self.known.clear()
        self.known[block] = head


def check_trailers(fields: Fields) -> None:
    """Raise ``MalformedError`` unless these may end a request."""
    for name, value in fields:
        if not _NAME.fullmatch(name) or _NOT_IN_VALUES.search(value) or name in _OF_HTTP_1:
            raise MalformedError


def _head_of(fields: Fields) -> Head:
    pseudo: dict[bytes, bytes] = {}
    for name, value in fields:
        if name not in _PSEUDO:
            break
        if name in pseudo or _NOT_IN_VALUES.search(value):
            raise MalformedError
        pseudo[name] = value
    own = fields[len(pseudo) :]
    content_length: int | None = None
    for name, value in own:
        # what begins with a colon here is unknown, or comes too late
        if not _NAME.fullmatch(name) or _NOT_IN_VALUES.search(value) or name in _OF_HTTP_1:
            raise MalformedError
        if name == b"te" and value.lower() != b"trailers":
            raise MalformedError
        if name == b"content-length":
            if not value.isdigit() or len(value) > 18 or content_length not in (None, int(value)):
                raise MalformedError
            content_length = int(value)
    method, path = pseudo.get(b":method"), pseudo.get(b":path")
    if not method or not path or not pseudo.get(b":scheme"):
        raise MalformedError
    return Head(method, path, own, content_length)
