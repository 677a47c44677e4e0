"""Header blocks to fields: HPACK (RFC 7541) with a table of 4 KiB.

A block that names a deadline differs from call to call, and enters the table. For such a block the package ``hpack``
takes ten times as long, which is more than a decision. Its Huffman code and its static table are used here, and tests
compare the two decoders.
"""

from collections import deque
from typing import Final

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

Field = tuple[bytes, bytes]
STATIC: Final[tuple[Field, ...]] = tuple((bytes(name), bytes(value)) for name, value in HeaderTable.STATIC_TABLE)
TABLE_BYTES: Final = 4_096
"""The table size that the protocol allows clients by default."""
OVERHEAD: Final = 32
"""What a field adds to the size of a table or a list, beside its name and value."""
_MAX_INTEGER_BYTES: Final = 4


class CompressionError(Exception):
    """The block cannot be read, and the table is lost."""


class ListTooLongError(CompressionError):
    """The fields are too large."""


class FieldDecoder:
    """Decodes the header blocks of one connection, in their order."""

    def __init__(self, max_list_bytes: int) -> None:
        self.has_changed = False
        """Whether the last block changed the table or its size."""
        self._max_list_bytes = max_list_bytes
        self._max_bytes = TABLE_BYTES
        self.table_bytes = 0
        self._entries: deque[Field] = deque()
        """Entries, the newest first."""

    def decode(self, block: bytes) -> list[Field]:
        """The fields of a block. Raises ``CompressionError``."""
        fields: list[Field] = []
        self.has_changed = False
        entries = self._entries
        static = len(STATIC)
        room = self._max_list_bytes
        at, end = 0, len(block)
        try:
            while at < end:
                first = block[at]
                if first & 0x80:
                    index = first & 0x7F
                    at += 1
                    if index == 0x7F:
                        index, at = _integer(block, at, index)
                    field = STATIC[index - 1] if 0 < index <= static else entries[self._dynamic(index)]
                elif first & 0xE0 == 0x20:
                    if fields:
                        raise CompressionError("the table's size changes in the middle of a block")
                    at = self._resize(block, at)
                    continue
                else:
                    field, at = self._literal(block, at, first)
                fields.append(field)
                room -= OVERHEAD + len(field[0]) + len(field[1])
                if room < 0:
                    raise ListTooLongError(f"a header list is over {self._max_list_bytes} bytes")
        except IndexError:
            raise CompressionError("the block names what is not in the table, or is cut off") from None
        except HPACKDecodingError:
            raise CompressionError("a string is not in Huffman's code") from None
        return fields

    def _literal(self, block: bytes, at: int, first: int) -> tuple[Field, int]:
        """A literal field, and where it ends."""
        enters = first & 0x40
        mask = 0x3F if enters else 0x0F
        index = first & mask
        at += 1
        if index == mask:
            index, at = _integer(block, at, index)
        if not index:
            name, at = _string(block, at)
        elif index <= len(STATIC):
            name = STATIC[index - 1][0]
        else:
            name = self._entries[self._dynamic(index)][0]
        value, at = _string(block, at)
        field = (name, value)
        if enters:
            self._add(field)
        return field, at

    def _dynamic(self, index: int) -> int:
        if index <= len(STATIC):
            raise CompressionError("there is no field 0")
        return index - len(STATIC) - 1

    def _add(self, field: Field) -> None:
        self.has_changed = True
        self.table_bytes += OVERHEAD + len(field[0]) + len(field[1])
        self._entries.appendleft(field)
        self._evict()

    def _resize(self, block: bytes, at: int) -> int:
        size = block[at] & 0x1F
        at += 1
        if size == 0x1F:
            size, at = _integer(block, at, size)
        if size > TABLE_BYTES:
            raise CompressionError(f"the table has {TABLE_BYTES} bytes at most")
        self.has_changed = True
        self._max_bytes = size
        self._evict()
        return at

    def _evict(self) -> None:
        while self.table_bytes > self._max_bytes:
            name, value = self._entries.pop()
            self.table_bytes -= OVERHEAD + len(name) + len(value)


def _integer(block: bytes, at: int, value: int) -> tuple[int, int]:
    """A number that exceeds its prefix, and where it ends."""
    for nth in range(_MAX_INTEGER_BYTES):
        byte = block[at + nth]
        value += (byte & 0x7F) << (7 * nth)
        if not byte & 0x80:
            return value, at + nth + 1
    raise CompressionError("a number is too large")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    """A string, and where it ends."""
    first = block[at]
    length = first & 0x7F
    at += 1
    if length == 0x7F:
        length, at = _integer(block, at, length)
    end = at + length
    if end > len(block):
        raise CompressionError("a string is cut off")
    value = block[at:end]
    return (bytes(decode_huffman(value)) if first & 0x80 else value), end
