"""What client libraries denied from memory, as they report it afterwards; and denials, as regions remember them."""

import ipaddress
from typing import Annotated

import msgspec

from tidegate.contract.decision import Cause, LimitCause
from tidegate.contract.holds import Asker

MAX_DENIALS = 100
"""The most of one report."""
Requests = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
Units = Annotated[int, msgspec.Meta(ge=1, le=10**12)]


class RepeatedDenial(Asker, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``requests`` of one check that were denied again as a node had denied it, without asking; ``cost`` is their sum.

    ``policy`` and ``cause`` are those of the node's denial.
    """

    requests: Requests
    cost: Units
    policy: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    cause: LimitCause = "used_up"


class RepeatedDenials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/denials``."""

    denials: Annotated[list[RepeatedDenial], msgspec.Meta(min_length=1, max_length=MAX_DENIALS)]


MAX_FOUND = 100
"""The most denials that one region sends."""
KEY_SHOWN = 8
"""So much of a client's key is kept: its prefix, as the control plane shows it."""


def one_spelling(ip: str) -> str:
    """The address as RFC 5952 spells it, and as IPv4 where that is mapped into IPv6; text that is none as it is."""
    if ":" not in ip:
        return ip
    try:
        address = ipaddress.IPv6Address(ip)
    except ValueError:
        return ip
    return str(address.ipv4_mapped or address)


class Denial(msgspec.Struct, frozen=True, array_like=True):
    """One denial, as the region's store remembers it and agents send it.

    ``ip`` and that of a query are in :func:`one_spelling`. ``used`` and ``limit`` are units of the limit called
    ``policy`` in this region; ``requests`` is more than 1 where a client library denied from memory; ``left_out``: so
    many denials of the same caller, in the same second, were not kept beside this one.
    """

    at_ms: Annotated[int, msgspec.Meta(ge=0, le=2**47)]
    node: Annotated[str, msgspec.Meta(max_length=128)]
    cause: Cause
    revision: Annotated[int, msgspec.Meta(ge=0, le=2**62)]
    request_id: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    client: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    key: Annotated[str, msgspec.Meta(max_length=KEY_SHOWN)] | None = None
    ip: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    endpoint: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    policy: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    used: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    cost: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 1
    retry_after_s: Annotated[float, msgspec.Meta(ge=0, le=1e10)] | None = None
    reason_class: Annotated[str, msgspec.Meta(max_length=32)] | None = None
    degraded: bool = False
    requests: Requests = 1
    left_out: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0


class DenialQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which denials are asked for: all that is given must fit. Times are epoch milliseconds, ``until_ms`` excluded."""

    client: str | None = None
    key: str | None = None
    ip: str | None = None
    request_id: str | None = None
    since_ms: int = 0
    until_ms: int = 2**53
    most: int = MAX_FOUND

    def fits(self, denial: Denial) -> bool:
        """Whether the denial is asked for; of a key, the beginning is enough."""
        return (
            self.since_ms <= denial.at_ms < self.until_ms
            and self.client in (None, denial.client)
            and self.ip in (None, denial.ip)
            and self.request_id in (None, denial.request_id)
            and (self.key is None or (denial.key or "").startswith(self.key[:KEY_SHOWN]))
        )
