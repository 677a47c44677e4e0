"""How this region stands to the others, as far as limits are bound by it."""

import struct
from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

from data_plane.store.packing import SILENT, encode_rule
from tidegate.contract.limits import BUCKET_ALGORITHMS, EXACT, LimitRule, capacity, nominal_window_us, reduced_rate

_RULE = struct.Struct("<Bddd")
_SIZE = struct.Struct("<H")
_WHOLE = struct.Struct("<d")
_PEER = struct.Struct("<dd")


class Standing(NamedTuple):
    """``revision`` is that of the configuration; ``rights`` says that rights of strict limits move here.

    ``silent`` are the peers that are not heard, with the instant (microseconds) since when: the same on every node.
    """

    revision: int = 0
    rights: bool = False
    silent: tuple[tuple[str, int], ...] = ()


def shared_params(rule: LimitRule, standing: Standing, regions: Mapping[str, object]) -> bytes:
    """A shared limit as the scripts read it. While peers are silent, their share of what is left is kept for them."""
    shares = rule.shares if sum(rule.shares.values()) else dict.fromkeys(regions, 1)
    silent = [(name, shares.get(name, 0), since_us) for name, since_us in standing.silent if name in regions]
    if not silent or not rule.limit:
        return encode_rule(rule, shared=True)
    whole = sum(shares.values())
    if rule.algorithm in BUCKET_ALGORITHMS:
        return _slower(rule, whole - sum(share for _, share, _ in silent), whole)
    who = _WHOLE.pack(whole) + b"".join(
        bytes([len(name)]) + name.encode() + _PEER.pack(share, since_us) for name, share, since_us in silent
    )
    params = encode_rule(rule, shared=True)
    return bytes([params[0] + SILENT]) + params[1:] + _SIZE.pack(len(who)) + who


def _slower(rule: LimitRule, heard: int, whole: int) -> bytes:
    """A bucket that fills at the part of the rate that belongs to who is heard; in thousandths, to stay exact."""
    thousandths = max(1, 1_000 * heard // whole)
    rate, unit = reduced_rate(rule.limit, nominal_window_us(rule))
    slower = Fraction(rate * thousandths, unit * 1_000)
    if capacity(rule) * slower.denominator >= EXACT:
        return encode_rule(rule, shared=True)
    params = encode_rule(rule, shared=True)
    return _RULE.pack(params[0], slower.numerator, slower.denominator, capacity(rule))
