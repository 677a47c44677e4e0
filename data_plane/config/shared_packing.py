"""Packs shared limits for scripts, by the state of the region: unreachable peers keep their shares."""

import struct
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from data_plane.store.packing import SILENT, encode_rule
from tidegate.contract.limits import BUCKET_ALGORITHMS, EXACT, LimitRule, capacity, nominal_window_us, reduced_rate

_RULE = struct.Struct("<Bddd")
_SIZE = struct.Struct("<H")
_ALL_SHARES = struct.Struct("<d")
_PEER = struct.Struct("<dd")


class RegionFacts(NamedTuple):
    """The state of the region by which limits are resolved.

    ``revision`` is that of the shares; ``rights`` says that rights of strict limits move here. ``unreachable`` peers
    have the instant (microseconds) since when; it is the same on every node.
    """

    revision: int = 0
    rights: bool = False
    unreachable: tuple[tuple[str, int], ...] = ()


def shared_params(rule: LimitRule, region_facts: RegionFacts, regions: Mapping[str, object]) -> bytes:
    """Pack a shared limit. Unreachable peers keep their share of what is left."""
    shares = rule.shares if sum(rule.shares.values()) else dict.fromkeys(regions, 1)
    unreachable = [
        (name, shares.get(name, 0), since_us) for name, since_us in region_facts.unreachable if name in regions
    ]
    if not unreachable or not rule.limit:
        return encode_rule(rule, shared=True)
    all_shares = sum(shares.values())
    if rule.algorithm in BUCKET_ALGORITHMS:
        return _slower_bucket(rule, all_shares - sum(share for _, share, _ in unreachable), all_shares)
    peers = _ALL_SHARES.pack(all_shares) + b"".join(
        bytes([len(name)]) + name.encode() + _PEER.pack(share, since_us) for name, share, since_us in unreachable
    )
    params = encode_rule(rule, shared=True)
    return bytes([params[0] + SILENT]) + params[1:] + _SIZE.pack(len(peers)) + peers


def _slower_bucket(rule: LimitRule, reachable_shares: int, all_shares: int) -> bytes:
    """Pack a bucket that fills at the rate of the reachable regions' shares; in thousandths, to stay exact."""
    thousandths = max(1, 1_000 * reachable_shares // all_shares)
    rate, unit = reduced_rate(rule.limit, nominal_window_us(rule))
    slower = Fraction(rate * thousandths, unit * 1_000)
    if capacity(rule) * slower.denominator >= EXACT:
        return encode_rule(rule, shared=True)
    params = encode_rule(rule, shared=True)
    return _RULE.pack(params[0], slower.numerator, slower.denominator, capacity(rule))
