"""Gates of protected backends: which clients a factor admits, and the price of a check for those that it admits.

The highest class is admitted first, and within the last class the same clients for an hour. All figures are integers:
factors are millionths (``FULL`` admits all), hashes have 32 bits. Nodes with the same factors decide alike.

On the hot path a gate costs a few comparisons, and none while a backend is well. A ``ClassGate`` lives as long as the
node and gets new factors. A ``GatePass`` holds what a plan and a route fix; it is made with the rulebook and finds its
gate at its first request.
"""

from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import msgspec

from data_plane.store.packing import NEVER, Outcome, encode_check, priced

FULL = 1_000_000
ALL = 1 << 32
"""One more than any 32-bit hash."""
HOUR_US = 3_600_000_000
SMALLEST = 10_000
"""A hundredth: no price is more than a hundred times the cost."""
BY_CLASS, BY_WHOLE, BY_OPEN = 0, 1, 2
"""Which factor prices a limit: its class's (limits that name the policy), the backend's (its capacity), or that of the
capacity's open part."""
MAX_COSTS = 8
"""Packed checks that a pass keeps at the present prices, by cost, which clients choose."""
_PLAIN = (FULL, FULL, FULL)

_MIX = 0x9E3779B1  # 2^32 divided by the golden ratio, odd (Knuth, TAOCP 3, 6.4): consecutive values spread evenly
_MASK = ALL - 1


def hour_seed(now_us: int) -> int:
    """The seed of an hour's cohorts, the same on every node."""
    return now_us // HOUR_US * 0x85EBCA6B & _MASK


def cohort_of(client: bytes, seed: int) -> int:
    """A client's place under a seed, from 0 to 2^32 - 1; clients below the threshold are admitted."""
    return ((crc32(client) ^ seed) * _MIX) & _MASK


def threshold_of(factor: int) -> int:
    """The place below which a factor admits clients."""
    return factor * ALL // FULL


def charge_of(cost: int, factor: int) -> tuple[int, int]:
    """The price of ``cost`` units: whole units, and the part of 2^32 of requests that pay one unit more.

    The average is exactly cost / factor; ``spread`` tells which requests pay more.
    """
    whole, rest = divmod(cost * FULL, factor)
    return whole, rest * ALL // factor


def spread(number: int) -> int:
    """The place of the ``number``-th request in 2^32: even over any run of numbers and any regular part of a run, so
    that no client that sends every second request always pays more.
    """
    return number * _MIX & _MASK


class Charged(NamedTuple):
    """A limit whose price follows the load: its place in the limit set, and the most units that it can hold."""

    place: int
    factor: int
    most: int


class ClassGate:
    """One class of one backend. ``offered``, ``shed`` and ``own`` are units since the start of the process."""

    __slots__ = ("factor", "factors", "numbered", "offered", "own", "seed", "shed", "threshold", "version")

    def __init__(self) -> None:
        self.offered = 0
        self.shed = 0
        self.own = 0
        """Offered units, shed or not, that clients' own limits denied: they would never reach the backend."""
        self.factor = FULL
        """The share of this class that is admitted, in millionths."""
        self.factors = _PLAIN
        """The factors that price limits, by ``BY_CLASS`` and so on; at least ``SMALLEST``."""
        self.threshold = ALL
        self.seed = 0
        self.version = 0
        """Rises with each change of a price."""
        self.numbered = 0

    def set(self, factor: int, whole: int, *, floor: int, reserve: int, seed: int) -> None:
        """Set the class's and the backend's factors, in millionths. ``floor`` and ``reserve`` are the policy's."""
        factors = (max(factor, floor, SMALLEST), max(whole, SMALLEST), max(open_factor(whole, reserve), SMALLEST))
        if factors != self.factors:
            self.factors = factors
            self.version += 1
        self.factor = factor
        self.threshold = threshold_of(factor)
        self.seed = seed

    def admits(self, client: bytes, cost: int) -> bool:
        """Whether this client's cohort of the class is admitted."""
        self.offered += cost
        if self.threshold == ALL or cohort_of(client, self.seed) < self.threshold:
            return True
        self.shed += cost
        return False

    def price(self, by: int, cost: int) -> int:
        """The price of ``cost`` units of a limit for this request."""
        whole, part = charge_of(cost, self.factors[by])
        self.numbered += 1
        return whole + (spread(self.numbered) < part)


def open_factor(whole: int, reserve: int) -> int:
    """The factor of a capacity's open part: all of it is cut before the reserve is."""
    return FULL if whole == FULL else max(0, whole - reserve) * FULL // (FULL - reserve)


class GatePass:
    """How requests of a plan on a route pass their backend's gate. ``policy`` is the backend's adaptive policy.

    ``own`` are the places of enforced limits other than the backend's capacity; ``most`` is what that capacity holds.
    """

    __slots__ = (
        "_packed_at",
        "backend",
        "charged",
        "gate",
        "most",
        "own",
        "packs",
        "params",
        "policy",
        "priority",
        "retry_after_s",
    )  # fmt: skip

    def __init__(
        self, backend: str, policy: str, priority: int, retry_after_s: int, *,
        params: Sequence[bytes] = (), charged: Sequence[Charged] = (), own: Sequence[int] = (),
        most: int | None = None,
    ) -> None:  # fmt: skip
        self.backend = backend
        self.policy = policy
        self.priority = priority
        self.retry_after_s = retry_after_s
        self.params = tuple(params)
        self.charged = tuple(charged)
        self.own = tuple(own)
        self.most = most
        self.gate: ClassGate | None = None
        """The gate, from the first request on."""
        self._packed_at = -1
        self.packs: dict[int, tuple[tuple[int, bytes], ...]] = {}

    def packed(self, gate: ClassGate, cost: int) -> bytes | None:
        """The packed check with each limit's price for this request; ``None`` while every price is the cost."""
        if gate.factors == _PLAIN or not self.charged:
            return None
        if self._packed_at != gate.version:
            self._packed_at = gate.version
            self.packs.clear()
        checks = self.packs.get(cost)
        if checks is None:
            if len(self.packs) >= MAX_COSTS:
                self.packs.clear()
            checks = self.packs[cost] = self.pack(gate, cost)
        gate.numbered += 1
        place = spread(gate.numbered)
        for bound, packed in checks:
            if place < bound:
                return packed
        raise AssertionError("the last bound is above every place")

    def shown(self, gate: ClassGate, outcomes: list[Outcome]) -> list[Outcome]:
        """The outcomes of a denied check as clients see them: ``remaining`` at the present price.

        For an allowed check the script computes it.
        """
        shown = list(outcomes)
        for charged in self.charged:
            factor = gate.factors[charged.factor]
            if factor != FULL:
                outcome = shown[charged.place]
                shown[charged.place] = msgspec.structs.replace(outcome, remaining=outcome.remaining * factor // FULL)
        return shown

    def denied_by_price(self, outcomes: Sequence[Outcome], place: int, cost: int) -> bool:
        """Whether the limit at ``place`` denied because of load only: at the plain cost enough was left."""
        for charged in self.charged:
            if charged.place == place:
                by_load = charged.factor != BY_CLASS  # a capacity is the backend's, not the client's
                return outcomes[place].retry_us != NEVER and (by_load or outcomes[place].remaining >= cost)
        return False

    def denied(self, outcomes: Sequence[Outcome], cost: int) -> None:
        """Count a check that passed the gate and was denied, unless the backend's capacity denied it."""
        if self.gate is not None and self.is_own(outcomes, cost):
            self.gate.own += cost

    def denied_unasked(self, outcomes: Sequence[Outcome], cost: int) -> None:
        """Count a check that is denied before it comes to the gate."""
        if self.gate is not None:
            self.gate.offered += cost
            self.denied(outcomes, cost)

    def is_own(self, outcomes: Sequence[Outcome], cost: int) -> bool:
        """Whether a check would be denied at any load: by the client's own limit at its plain cost, or for a cost that
        exceeds the backend's capacity.
        """
        if self.most is not None and cost > self.most:
            return True
        denied = [place for place in self.own if not outcomes[place].allowed]
        return bool(denied) and not all(self.denied_by_price(outcomes, place, cost) for place in denied)

    def pack(self, gate: ClassGate, cost: int) -> tuple[tuple[int, bytes], ...]:
        """The packed check of each range of places, by upper bound: places below a limit's part pay one unit more."""
        prices = [(charged, *charge_of(cost, gate.factors[charged.factor])) for charged in self.charged]
        checks = []
        for bound in sorted({part for _, _, part in prices if part} | {ALL}):
            params = list(self.params)
            for charged, whole, part in prices:
                factor = gate.factors[charged.factor]
                if factor != FULL:
                    # a cost that fits the limit has a price that fits it too
                    price = max(cost, min(whole + (bound <= part), charged.most))
                    params[charged.place] = priced(params[charged.place], price, factor / FULL)
            checks.append((bound, encode_check(cost, params)))
        return tuple(checks)


def retry_after_s(gate_pass: GatePass, client: bytes, now_us: int) -> int:
    """When a shed client may retry: at a time of its own, from once to twice the policy's, so that retries spread."""
    base = gate_pass.retry_after_s
    return base + cohort_of(client, now_us // 1_000_000) * (base + 1) // ALL
