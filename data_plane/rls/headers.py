"""Heads of requests: validation of their fields (RFC 9113, section 8), and a cache of header blocks.

Most clients send the same few header blocks over and over, as bytes that mean the same until the table changes.
"""

import re
from typing import Any, Final

from data_plane.rls.compression import OVERHEAD, CompressionError, Field, FieldDecoder, ListTooLongError
from data_plane.rls.frames import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, Http2Error, Http2Limits

_NAME: Final = re.compile(rb":?[!#$%&'*+\-.^_`|~0-9a-z]+")
_NOT_IN_VALUES: Final = re.compile(rb"[\0\r\n]|^[ \t]|[ \t]\Z")
_PSEUDO: Final = frozenset({b":method", b":scheme", b":authority", b":path"})
_OF_HTTP_1: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_COLON: Final = ord(":")
_SOUND_FIELDS: Final = 256


class MalformedError(Exception):
    """The fields are not a request's: a stream error."""


class Head:
    """A request's head. Equal bytes give the same object, so that a handler can keep what it derives in ``meaning``.

    ``answered_early`` is the handler's too: such a request is served before its body has come.
    """

    __slots__ = ("answered_early", "content_length", "fields", "meaning", "method", "path")

    def __init__(self, method: bytes, path: bytes, fields: list[Field], content_length: int | None) -> None:
        self.method = method
        self.path = path
        self.fields = fields
        """Pairs in the order sent, with lower-case names, without pseudo-header fields."""
        self.content_length = content_length
        self.meaning: Any = None
        self.answered_early = False


class HeaderReader:
    """Reads the header blocks of one connection, in their order."""

    def __init__(self, limits: Http2Limits) -> None:
        self.known: dict[bytes, Head] = {}
        """Heads by block, for blocks that leave the table unchanged; cleared when the table changes."""
        self._limits = limits
        self.decoder = FieldDecoder(limits.header_bytes)
        self.sound: set[Field] = set()
        """Fields that passed validation."""

    def read(self, block: bytes) -> Head:
        """The head of a block. Raises ``MalformedError`` and ``Http2Error``."""
        head = self.known.get(block)
        if head is None:
            fields = self.decode(block)
            head = self._head_of(fields)
            self._remember(block, head, fields)
        return head

    def decode(self, block: bytes) -> list[Field]:
        """The decoded fields of a block. Raises ``Http2Error`` if the table is lost."""
        try:
            fields = self.decoder.decode(block)
        except ListTooLongError as error:
            raise Http2Error(ENHANCE_YOUR_CALM, str(error)) from None
        except CompressionError as error:
            raise Http2Error(COMPRESSION_ERROR, str(error)) from None
        if self.decoder.has_changed:
            self.known.clear()
        return fields

    def check_trailers(self, fields: list[Field]) -> None:
        """Raise ``MalformedError`` unless these may end a request."""
        for field in fields:
            if not self._is_sound(field) or field[0][0] == _COLON:
                raise MalformedError

    def _remember(self, block: bytes, head: Head, fields: list[Field]) -> None:
        limits = self._limits
        if self.decoder.has_changed or len(block) > limits.remembered_bytes:
            return
        size = sum(len(name) + len(value) + OVERHEAD for name, value in fields)
        if size > 2 * limits.remembered_bytes:  # a short block may name the table's longest field many times
            return
        if len(self.known) >= limits.remembered_blocks:
            self.known.clear()
        self.known[block] = head

    def _is_sound(self, field: Field) -> bool:
        name, value = field
        if not _NAME.fullmatch(name) or _NOT_IN_VALUES.search(value) or name in _OF_HTTP_1:
            return False
        if name == b"te" and value.lower() != b"trailers":
            return False
        if len(name) + len(value) <= OVERHEAD * 2:
            if len(self.sound) >= _SOUND_FIELDS:
                self.sound.clear()
            self.sound.add(field)
        return True

    def _head_of(self, fields: list[Field]) -> Head:
        sound = self.sound
        pseudo: dict[bytes, bytes] = {}
        content_length: int | None = None
        for nth, field in enumerate(fields):
            if field not in sound and not self._is_sound(field):
                raise MalformedError
            name, value = field
            if name[0] == _COLON:
                if len(pseudo) < nth or name in pseudo or name not in _PSEUDO:
                    raise MalformedError
                pseudo[name] = value
            elif name == b"content-length":
                if not value.isdigit() or len(value) > 18 or content_length not in (None, int(value)):
                    raise MalformedError
                content_length = int(value)
        method, path = pseudo.get(b":method"), pseudo.get(b":path")
        if not method or not path or not pseudo.get(b":scheme"):
            raise MalformedError
        return Head(method, path, fields[len(pseudo) :], content_length)
