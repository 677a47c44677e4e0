"""Blocks and enforcement overrides as they travel: who is refused at once, and which limits are in shadow for a while.

Both end by themselves at ``expires_at`` on every node, with or without the control plane.
"""

import ipaddress
from collections.abc import Iterator
from typing import Literal

import msgspec

from tidegate.contract.limits import Violation

ReasonClass = Literal["abuse", "security", "billing", "legal", "other"]
"""What a blocked caller sees; the reason in words stays with the admins."""
EnforcementMode = Literal["enforce", "shadow"]
EVERY_LIMIT = "*"


class Block(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Whoever is named is refused, whatever limits say. One of ``client``, ``key_id``, ``network``, ``endpoint`` is
    set; ``network`` is an address or a CIDR block. ``expires_at`` is epoch seconds.
    """

    block: str
    client: str | None = None
    key_id: str | None = None
    network: str | None = None
    endpoint: str | None = None
    reason_class: ReasonClass = "other"
    expires_at: float | None = None


class EnforcementOverride(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Overrides ``shadow`` of every limit (``target`` ``*``) or of one (``plan/limit``, ``_/limit`` outside plans).

    That of one limit is stronger than that of all. ``expires_at`` is epoch seconds.
    """

    target: str
    mode: EnforcementMode
    expires_at: float | None = None


def network_of(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """The network that ``text`` means; IPv4 that is mapped into IPv6 is IPv4. Raises ``ValueError``."""
    network = ipaddress.ip_network(text)
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def block_violations(block: Block) -> Iterator[Violation]:
    """Yield what makes ``block`` unacceptable."""
    subjects = [name for name in ("client", "key_id", "network", "endpoint") if getattr(block, name) is not None]
    if len(subjects) != 1:
        yield Violation("client", "give exactly one of client, key_id, network and endpoint")
    if block.network is not None:
        try:
            network_of(block.network)
        except ValueError as error:
            yield Violation("network", f"is no address and no CIDR block: {error}")
