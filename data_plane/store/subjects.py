"""Subjects of counters: dimension values become key parts that can never be confused with one another.

A counter's key is ``{<kind>:<value>}<limit id>`` and, for combined scopes, ``|<kind>:<value>`` for each further
dimension; then ``.<generation>`` where the client was reset. The first dimension is the hash tag, so all limits of a
client live in one slot of a cluster.
"""

import re
import socket

import msgspec

from tidegate.contract.limits import dimensions

MAX_ATTRIBUTE_BYTES = 128

_MAX_ADDRESSES = 32_768
_MAPPED_V4 = b"\0" * 10 + b"\xff\xff"
# Values from configuration and canonical addresses need no escape; attributes hold anything.
_ESCAPES = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D", "|": "%7C"})

# The dimension most likely to be of one client comes first and makes the slot; static ones come last.
_ORDER = {"client": 0, "ip": 1, "attribute": 2, "backend": 3, "endpoint": 4, "global": 5}
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_LIMIT_CODE = re.compile(rb"\{[^{}]*\}([0-9a-z]{1,12})(?:[|.]|$)")
_IN_A_CLIENT = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D", "|": "%7C", ":": "%3A"})
_KINDS = {"ip": "i", "backend": "b", "endpoint": "e", "global": "g"}


class InvalidAddressError(ValueError):
    """Not an IPv4 or IPv6 address."""


class Address(msgspec.Struct, frozen=True, gc=False):
    """An address as it is counted: by itself, and (IPv6 only) with the ``site`` that one customer can rotate in."""

    subject: str
    site: str | None


UNKNOWN_ADDRESS = Address("unknown", None)


def address_of(text: str, *, coarse: bool = False) -> Address:
    """IPv4 as written, IPv6 as its /64 and its /48, IPv4-mapped IPv6 as the IPv4 in it; ``coarse``: /24 and /48 alone.

    Raises ``InvalidAddressError`` for anything else, zones (``%eth0``) included.
    """
    try:
        if ":" not in text:
            # inet_pton accepts one spelling an address, so the text is canonical.
            packed = socket.inet_pton(socket.AF_INET, text)
            return Address(_network(packed, 3), None) if coarse else Address(text, None)
        packed = socket.inet_pton(socket.AF_INET6, text)
    except (OSError, ValueError):  # ValueError: a NUL or a character that is not ASCII
        raise InvalidAddressError(text) from None
    if packed.startswith(_MAPPED_V4):
        return address_of(socket.inet_ntop(socket.AF_INET, packed[12:]), coarse=coarse)
    site = _network(packed, 6)
    return Address(site, None) if coarse else Address(_network(packed, 8), site)


class Named(msgspec.Struct, frozen=True, gc=False):
    """An address as keys begin with it; ``has_site`` for IPv6, else ``site_tag`` is empty."""

    tag: bytes
    site_tag: bytes
    has_site: bool


def is_ipv4(text: str) -> bool:
    """Whether it is an IPv4 address; its one spelling is its subject."""
    try:
        socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError):
        return False
    return True


class AddressBook(dict[str | None, Named]):
    """Addresses by how they are written, each looked at once: ``book[text]`` raises ``InvalidAddressError``.

    For IPv6: an IPv4 address is read faster than it is found in a table that no cache of the processor holds.

    Bounded: when it is full it begins again from nothing.
    """

    def __missing__(self, text: str | None) -> Named:
        address = UNKNOWN_ADDRESS if text is None else address_of(text)
        site_tag = b"" if address.site is None else tag("ip", address.site).encode()
        named = Named(tag("ip", address.subject).encode(), site_tag, address.site is not None)
        if len(self) >= _MAX_ADDRESSES:
            self.clear()
        self[text] = named
        return named


def _network(packed: bytes, kept: int) -> str:
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return f"{socket.inet_ntop(family, packed[:kept].ljust(len(packed), bytes(1)))}/{kept * 8}"


def ordered_dimensions(scope: str) -> list[str]:
    """The dimensions of a scope in key order: ``endpoint+client`` and ``client+endpoint`` share counters."""
    return sorted(dimensions(scope), key=lambda name: (_ORDER[name.partition(":")[0]], name))


def part(dimension: str, value: str) -> str:
    """One dimension's part of a key, escaped: ("a", "b|c") and ("a|b", "c") never meet.

    A client is its name alone, without a colon; all others have their kind and a colon in front. Keys are most of what
    a counter takes in the store.
    """
    if dimension == "client":
        return value.translate(_IN_A_CLIENT)
    kind = _KINDS.get(dimension) or "a." + dimension.partition(":")[2]
    return f"{kind}:{value.translate(_ESCAPES)}"


def limit_code(limit_id: int) -> str:
    """A limit's id in keys: base 36, because it is short."""
    code = ""
    while True:
        limit_id, digit = divmod(limit_id, 36)
        code = _DIGITS[digit] + code
        if not limit_id:
            return code


def limit_of_key(key: bytes) -> int:
    """The id of the limit that a counter belongs to; -1 when the key is none of ours."""
    found = _LIMIT_CODE.match(key)
    return int(found[1], 36) if found else -1


def generation_end(generation: int) -> str:
    """What keys of a client end with that was reset ``generation`` times."""
    return f".{generation}" if generation else ""


def tag(dimension: str, value: str) -> str:
    """The first dimension's part: the hash tag of the key."""
    return "{" + part(dimension, value) + "}"


def give_back_key(key: bytes, id: bytes) -> bytes:
    """The key by which a give-back is remembered, in the slot of the counter ``key``; a probe may have no hash tag."""
    return key[: key.find(b"}") + 1] + b"gb" + id.hex().encode()
