"""Slots of a Cluster: the map that a server reports, tags that put a key in a slot, and keys that one call may name."""

from binascii import crc_hqx
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import NamedTuple, TypeVar

from data_plane.store.ports import RegionStore

T = TypeVar("T")
SLOTS = 16_384
_TAG_LETTERS = b"abcdefghijklmnopqrstuvwxyz0123456789"


class SlotRange(NamedTuple):
    """Slots ``first`` to ``last``, both included, and the address of their master."""

    first: int
    last: int
    host: str
    port: int


def read_slots(reply: Sequence[Sequence[object]], asked_host: str) -> list[SlotRange]:
    """Read the reply to ``CLUSTER SLOTS``; a server that does not know its own address is the one that was asked."""
    ranges = []
    for first, last, master, *_ in reply:
        if not isinstance(master, list) or not isinstance(first, int) or not isinstance(last, int):
            raise TypeError("not a reply to CLUSTER SLOTS")
        host, port = master[0], master[1]
        name = host.decode() if isinstance(host, bytes) else ""
        ranges.append(SlotRange(first, last, name if name not in {"", "?"} else asked_host, int(port)))
    return ranges


def read_redirect(message: str, asked_host: str) -> tuple[int, tuple[str, int]]:
    """Slot and address of ``MOVED 3999 10.0.0.1:6381`` or ``ASK ...``; an empty host is the one that was asked."""
    _, slot, address = message.split(" ")[:3]
    host, _, port = address.rpartition(":")
    return int(slot), (host if host not in {"", "?"} else asked_host, int(port))


def slot_tags() -> list[bytes]:
    """For each slot the shortest tag of lower-case letters and digits that hashes to it (20 ms; kept by the caller)."""
    tags: list[bytes] = [b""] * SLOTS
    missing = SLOTS
    for length in (1, 2, 3, 4):
        for letters in product(_TAG_LETTERS, repeat=length):
            tag = bytes(letters)
            slot = crc_hqx(tag, 0) % SLOTS
            if not tags[slot]:
                tags[slot] = tag
                missing -= 1
                if not missing:
                    return tags
    raise AssertionError("four letters reach every slot")


def parts_by_slot(
    store: RegionStore, items: Sequence[T], key_of: Callable[[T], bytes], max_items: int
) -> Iterator[tuple[bytes, Sequence[T]]]:
    """Split items into parts that one script call may name: keys of one slot, with the dirty key in that slot."""
    groups: dict[bytes, list[T]] = {}
    for item in items:
        groups.setdefault(store.slot_key_beside(key_of(item)), []).append(item)
    for dirty, group in groups.items():
        for start in range(0, len(group), max_items):
            yield dirty, group[start : start + max_items]
