"""Blocks: requests refused before any limit, found in tables by client, key, endpoint and network."""

import socket
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple, TypeVar

from tidegate.contract.blocks import Block, ReasonClass, network_of

_MAPPED_V4 = b"\0" * 10 + b"\xff\xff"
_NEVER = float("inf")
K = TypeVar("K", str, int)


class BlockEnd(NamedTuple):
    """When a block ends (epoch seconds, or infinity), and its reason."""

    until_s: float
    reason_class: ReasonClass


class _Networks:
    """The networks of one address family: a table for each prefix length, the longest prefix first."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._tables: dict[int, dict[int, BlockEnd]] = {}
        self._shifts: tuple[tuple[int, dict[int, BlockEnd]], ...] = ()

    def add(self, network: IPv4Network | IPv6Network, entry: BlockEnd) -> None:
        shift = self._bits - network.prefixlen
        _note(self._tables.setdefault(shift, {}), int(network.network_address) >> shift, entry)
        self._shifts = tuple(sorted(self._tables.items()))

    def find(self, address: int, now_s: float) -> BlockEnd | None:
        for shift, table in self._shifts:
            entry = table.get(address >> shift)
            if entry is not None and entry.until_s > now_s:
                return entry
        return None


class Blocks:
    """Every block of one revision."""

    __slots__ = ("_clients", "_endpoints", "_keys", "_v4", "_v6", "documents")

    def __init__(self, documents: Mapping[str, Block]) -> None:
        self.documents = documents
        self._clients: dict[str, BlockEnd] = {}
        self._keys: dict[str, BlockEnd] = {}
        self._endpoints: dict[str, BlockEnd] = {}
        self._v4: _Networks | None = None
        self._v6: _Networks | None = None
        for block in documents.values():
            self._add(block, BlockEnd(_NEVER if block.expires_at is None else block.expires_at, block.reason_class))

    def of_caller(self, client: str, key_id: str, now_s: float) -> BlockEnd | None:
        """The block of a client or its key that is in force at ``now_s`` (epoch seconds)."""
        return _in_force(self._clients.get(client), now_s) or _in_force(self._keys.get(key_id), now_s)

    def of_endpoint(self, endpoint: str, now_s: float) -> BlockEnd | None:
        """The block of an endpoint."""
        return _in_force(self._endpoints.get(endpoint), now_s)

    def of_address(self, ip: str, now_s: float) -> BlockEnd | None:
        """The block of the longest network that holds ``ip``; ``None`` for text that is no address."""
        if self._v4 is None and self._v6 is None:
            return None
        try:
            packed = socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)
        except (OSError, ValueError):
            return None
        if packed.startswith(_MAPPED_V4) and len(packed) == 16:
            packed = packed[12:]
        networks = self._v4 if len(packed) == 4 else self._v6
        return None if networks is None else networks.find(int.from_bytes(packed, "big"), now_s)

    def in_force(self, now_s: float) -> int:
        """Number of blocks that have not ended."""
        return sum(1 for block in self.documents.values() if block.expires_at is None or block.expires_at > now_s)

    def _add(self, block: Block, entry: BlockEnd) -> None:
        if block.client is not None:
            _note(self._clients, block.client, entry)
        elif block.key_id is not None:
            _note(self._keys, block.key_id, entry)
        elif block.endpoint is not None:
            _note(self._endpoints, block.endpoint, entry)
        elif block.network is not None:
            network = network_of(block.network)
            if isinstance(network, IPv4Network):
                self._v4 = self._v4 or _Networks(32)
                self._v4.add(network, entry)
            else:
                self._v6 = self._v6 or _Networks(128)
                self._v6.add(network, entry)


def _note(table: dict[K, BlockEnd], key: K, entry: BlockEnd) -> None:
    """Keep the block that lasts longest, of several on one subject."""
    known = table.get(key)
    if known is None or known.until_s < entry.until_s:
        table[key] = entry


def _in_force(entry: BlockEnd | None, now_s: float) -> BlockEnd | None:
    return entry if entry is not None and entry.until_s > now_s else None
