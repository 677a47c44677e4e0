"""Keys of counters: a rule and a route fix a part once, and each check adds its subject."""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from data_plane.store.subjects import Address, generation_end, limit_code, ordered_dimensions, part, tag
from tidegate.contract.config import Client, Endpoint
from tidegate.contract.limits import LimitRule

OF_CLIENT: Final = 0
OF_ADDRESS: Final = 1
OF_SITE: Final = 2
OF_NOBODY: Final = 3
"""The owner of a counter: the places in ``Subject.begins`` and ``Subject.ends``."""

Begins = tuple[bytes, bytes, bytes, bytes]
_SITE = "site"
"""The dimension ``ip`` of a limit for a whole IPv6 site."""


class Subject(msgspec.Struct, frozen=True, gc=False):
    """The subject of a request, ready for keys. Without a client the address takes its place."""

    begins: Begins
    """The beginning of keys, by owner."""
    ends: Begins
    """The end of keys, by owner: a client's generation, after a reset."""
    client_part: str
    address: str
    site: str
    """The IPv6 site, or the address if it is IPv4."""
    attributes: Mapping[str, str]


def subject_of(client: Client | None, address: Address, attributes: Mapping[str, str]) -> Subject:
    """The subject of a request; ``client`` is ``None`` for anonymous requests."""
    site = address.site or address.subject
    address_part = part("ip", address.subject)
    client_part = address_part if client is None else part("client", client.client)
    begins = (_tag(client_part), _tag(address_part), _tag(part("ip", site)), b"")
    end = b"" if client is None else generation_end(client.generation).encode()
    return Subject(begins, (end, b"", b"", b""), client_part, address.subject, site, attributes)


class KeyBuilder(NamedTuple):
    """One limit's keys on one route."""

    owner: int
    rest: bytes
    """The key after the owner's tag."""
    varying: tuple[tuple[str, str], ...] = ()
    """If addresses or attributes are part of the key: each dimension, in order, with the part that the route fixes."""

    def key(self, subject: Subject) -> bytes:
        """The key of this subject's counter."""
        if not self.varying:
            return subject.begins[self.owner] + self.rest + subject.ends[self.owner]
        first, *others = (fixed or _part(name, subject) for name, fixed in self.varying)
        tail = "".join("|" + other for other in others)
        return _tag(first) + self.rest + tail.encode() + subject.ends[self.owner]


def key_builder(rule: LimitRule, endpoint: Endpoint, *, of_site: bool = False) -> KeyBuilder:
    """The builder of a rule's keys on a route; ``of_site``: the address's whole IPv6 site is counted."""
    values = {"endpoint": endpoint.endpoint, "backend": endpoint.backend or "", "global": ""}
    first, *others = ordered_dimensions(rule.scope)
    code = limit_code(rule.id)
    if all(name in values for name in others):
        rest = (code + "".join("|" + part(name, values[name]) for name in others)).encode()
        if first == "client":
            return KeyBuilder(OF_CLIENT, rest)
        if first == "ip":
            return KeyBuilder(OF_SITE if of_site else OF_ADDRESS, rest)
        if first in values:
            return KeyBuilder(OF_NOBODY, tag(first, values[first] or str(rule.id)).encode() + rest)
    varying = tuple(
        (_SITE if of_site and name == "ip" else name, part(name, values[name]) if name in values else "")
        for name in (first, *others)
    )
    return KeyBuilder(OF_CLIENT if "client" in (first, *others) else OF_NOBODY, code.encode(), varying)


def _part(name: str, subject: Subject) -> str:
    match name:
        case "client":
            return subject.client_part
        case "ip":
            return part("ip", subject.address)
        case "site":
            return part("ip", subject.site)
        case _:
            return part(name, subject.attributes.get(name.partition(":")[2], ""))


def _tag(first_part: str) -> bytes:
    return f"{{{first_part}}}".encode()
