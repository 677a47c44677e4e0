"""The arguments and the reply of ``lua/decide.lua``: packed, because this is the hot path of both sides.

A rule is packed once, when the config is applied; a check then costs one join. All numbers are little-endian.
"""

import struct
from collections.abc import Sequence

import msgspec

from tidegate.contract.calendar import calendar_anchor_us
from tidegate.contract.limits import LimitRule, bucket_rate, capacity, nominal_window_us, sliding_tick_us

NEVER = -1
UNKNOWN = -1
"""``remaining`` of a denial without a counter: what is left is unknown."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """One limit's verdict. Times are microseconds from the store's now; ``retry_us`` is ``NEVER`` when it can't pass.

    ``remaining`` is what is left after the decision as a whole: a denied check consumed nothing anywhere.
    """

    allowed: bool
    remaining: int
    reset_us: int
    retry_us: int
    delay_us: int


SHADOW = 8
SHARED = 16
STRICT = 32
"""Rights: the strict parameters follow the rule (``strict_packing``)."""
UNREACHABLE = 64
"""Peers are unreachable: their numbers follow the rule (``config.limit_resolution``)."""

_ALGORITHMS = {"fixed_window": 0, "sliding_window": 1, "sliding_log": 2, "token_bucket": 3, "leaky_bucket": 4}
RULE = struct.Struct("<Bddd")
"""The head (algorithm and flags) and three figures, with which every limit's argument begins."""
_COST = struct.Struct("<d")
_CHECK = struct.Struct("<dB")

MOST_LIMITS = 255
FIGURES = 3
"""Numbers in a reply for each limit."""


def head_of(rule: LimitRule, flags: int) -> int:
    """A limit's algorithm and flags."""
    return _ALGORITHMS[rule.algorithm] + (SHADOW if rule.shadow else 0) + flags


def encode_rule(rule: LimitRule, *, shared: bool = False) -> bytes:
    """One limit as the script reads it. ``shared`` makes its counts known to other regions.

    ``rule.limit`` is what this region may admit: for ``regional`` limits put the region's share there first.
    """
    return RULE.pack(head_of(rule, SHARED if shared else 0), *_parameters(rule))


def encode_check(cost: int, params: Sequence[bytes]) -> bytes:
    """One check of ``cost`` units against limits that ``encode_rule`` packed; at most ``MOST_LIMITS``."""
    return _CHECK.pack(cost, len(params)) + b"".join(params)


def params_end(packed: bytes, at: int) -> int:
    """Where the argument of one limit ends, without a price, that begins at ``at`` of a packed check."""
    end = at + RULE.size
    if packed[at] & UNREACHABLE:
        return end + 2 + int.from_bytes(packed[end : end + 2], "little")
    return end + int(RULE.unpack_from(packed, at)[1]) if packed[at] & STRICT else end


def without_rights(params: bytes) -> bytes:
    """A deleted limit, as ``encode_rule`` packed it; a strict one without rights, which scripts leave alone."""
    return RULE.pack(params[0] % SHADOW, 0, 0, 0) if params[0] & STRICT else params


def encode_charge(params: bytes, cost: int) -> bytes:
    """One counter's argument of ``lua/charge.lua``: ``cost`` units under a rule that ``encode_rule`` packed."""
    return _COST.pack(cost) + params


def decode_figures(reply: bytes) -> tuple[int, ...]:
    """A reply as it is: the store's clock in microseconds, then for each limit remaining, reset_us, wait."""
    return struct.unpack(f"<{len(reply) // 8}q", reply)


def outcomes_of(figures: Sequence[int], at: int, count: int) -> list[Outcome]:
    """The outcomes of ``count`` limits whose figures begin at ``at``."""
    outcomes = []
    for place in range(at, at + FIGURES * count, FIGURES):
        left, reset_us, wait = figures[place : place + FIGURES]
        if wait >= 0:
            outcomes.append(Outcome(True, left, reset_us, 0, wait))
        else:
            outcomes.append(Outcome(False, left, reset_us, -1 - wait if wait != -1 else NEVER, 0))
    return outcomes


def figures_of(now_us: int, outcomes: Sequence[Outcome]) -> list[int]:
    """The reply to one check that these outcomes would have come in."""
    figures = [now_us]
    for outcome in outcomes:
        wait = outcome.delay_us if outcome.allowed else -1 if outcome.retry_us == NEVER else -1 - outcome.retry_us
        figures += (outcome.remaining, outcome.reset_us, wait)
    return figures


def _parameters(rule: LimitRule) -> tuple[int, int, int]:
    window_us = nominal_window_us(rule)
    if rule.algorithm == "fixed_window":
        if rule.calendar is None:
            return rule.limit, window_us, 0
        return rule.limit, 0 if rule.calendar == "month" else window_us, calendar_anchor_us(rule)
    if rule.algorithm == "sliding_window":
        tick_us = sliding_tick_us(rule.limit, window_us)
        return rule.limit, window_us // tick_us, tick_us
    if rule.algorithm == "sliding_log":
        return rule.limit, window_us, 0
    return *bucket_rate(rule), capacity(rule)


PRICED = 128
PRICE_BYTES = 16
_PRICE = struct.Struct("<dd")
_HEAD_BYTES = 9


def priced(params: bytes, cost: int, share: float) -> bytes:
    """``params`` as ``packing.encode_rule`` packed them, charged ``cost`` units whatever the check costs.

    ``share`` is the part of the remaining units that a client can still use at the average price: its ``remaining``.
    """
    return bytes((params[0] | PRICED,)) + params[1:] + _PRICE.pack(cost, share)


def price_of(params: bytes, cost: int) -> int:
    """The units that a limit counts for a check of ``cost``."""
    return int(_PRICE.unpack(params[-PRICE_BYTES:])[0]) if params[0] & PRICED else cost


def is_priced(packed: bytes) -> bool:
    """Whether any limit of a check that ``packing.encode_check`` packed has a price."""
    return any(params[0] & PRICED for params in params_in(packed))


def params_in(packed: bytes) -> Sequence[bytes]:
    """Each limit's argument in a packed check, with its price where it has one."""
    params = []
    at = _HEAD_BYTES
    while at < len(packed):
        end = params_end(packed, at) + (PRICE_BYTES if packed[at] & PRICED else 0)
        params.append(packed[at:end])
        at = end
    return params
