"""Who passes, on the hot path: a few comparisons of whole numbers, and nothing at all while a backend is well.

A gate lives as long as the node and is told new factors; what a plan and a route fix is in a ``GatePass``, which is
made with the rulebook and finds its gate at its first request.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from data_plane.config.load_classes import ALL, FULL, charge_of, cohort_of, spread, threshold_of
from data_plane.store.packing import NEVER, Outcome, encode_check, priced

SMALLEST = 10_000
"""A hundredth: whoever is admitted at all never pays more than a hundred times."""
BY_CLASS, BY_WHOLE, BY_OPEN = 0, 1, 2
"""Which factor prices a limit: the class's (limits that name the policy), the backend's (its capacity), or that of the
part of the capacity that is open to all."""
MOST_COSTS = 8
"""Checks that a pass keeps ready at the present prices, by what they cost: clients choose it."""
_PLAIN = (FULL, FULL, FULL)


class Charged(NamedTuple):
    """A limit whose price follows the load: its place among the bound limits, and the most it can ever hold."""

    at: int
    by: int
    most: int


class ClassGate:
    """One class of one backend. ``offered``, ``shed`` and ``own`` are units since the start of the process."""

    __slots__ = ("factor", "factors", "numbered", "offered", "own", "seed", "shed", "threshold", "version")

    def __init__(self) -> None:
        self.offered = 0
        self.shed = 0
        self.own = 0
        """What clients' own limits deny of what is offered, shed or not: it would never reach the backend."""
        self.factor = FULL
        """The share of this class that is admitted, in millionths."""
        self.factors = _PLAIN
        """What prices limits, by ``BY_CLASS`` and so on: never so low that nothing could pass."""
        self.threshold = ALL
        self.seed = 0
        self.version = 0
        """Rises with every change of a price."""
        self.numbered = 0

    def set(self, factor: int, whole: int, *, floor: int, reserve: int, seed: int) -> None:
        """New factors, in millionths: the class's and the backend's. ``floor`` and ``reserve`` are the policy's."""
        factors = (max(factor, floor, SMALLEST), max(whole, SMALLEST), max(open_factor(whole, reserve), SMALLEST))
        if factors != self.factors:
            self.factors = factors
            self.version += 1
        self.factor = factor
        self.threshold = threshold_of(factor)
        self.seed = seed

    def admits(self, client: bytes, cost: int) -> bool:
        """Whether this client's class, and within it this client's cohort, is admitted."""
        self.offered += cost
        if self.threshold == ALL or cohort_of(client, self.seed) < self.threshold:
            return True
        self.shed += cost
        return False

    def price(self, by: int, cost: int) -> int:
        """What ``cost`` units of a limit cost this request."""
        whole, part = charge_of(cost, self.factors[by])
        self.numbered += 1
        return whole + (spread(self.numbered) < part)


def open_factor(whole: int, reserve: int) -> int:
    """What is left of the open part of a capacity: the reserve is not cut before all of the rest is."""
    return FULL if whole == FULL else max(0, whole - reserve) * FULL // (FULL - reserve)


class GatePass:
    """How the requests of a plan on a route pass their backend's gate. ``policy`` is the backend's adaptive policy.

    ``own`` are the places of the enforced limits that are not the backend's capacity; ``most`` is what that can hold.
    """

    __slots__ = (
        "_packed", "_packed_at", "backend", "charged", "gate", "most", "own", "params", "policy", "priority",
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
        """Found at the first request; then kept."""
        self._packed_at = -1
        self._packed: dict[int, tuple[tuple[int, bytes], ...]] = {}

    def packed(self, gate: ClassGate, cost: int) -> bytes | None:
        """The whole check with what this request costs each limit; ``None`` while all of them cost what they say."""
        if gate.factors == _PLAIN or not self.charged:
            return None
        if self._packed_at != gate.version:
            self._packed_at = gate.version
            self._packed.clear()
        made = self._packed.get(cost)
        if made is None:
            if len(self._packed) >= MOST_COSTS:
                self._packed.clear()
            made = self._packed[cost] = self._made(gate, cost)
        gate.numbered += 1
        place = spread(gate.numbered)
        for bound, packed in made:
            if place < bound:
                return packed
        raise AssertionError("the last bound is above every place")

    def told(self, gate: ClassGate, outcomes: list[Outcome]) -> list[Outcome]:
        """The outcomes of a denied check as clients see them: what is left is what they can do at the present price.

        (Of an allowed one the script says it so.)
        """
        told = list(outcomes)
        for charged in self.charged:
            factor = gate.factors[charged.by]
            if factor != FULL:
                outcome = told[charged.at]
                told[charged.at] = msgspec.structs.replace(outcome, remaining=outcome.remaining * factor // FULL)
        return told

    def denied_by_price(self, outcomes: Sequence[Outcome], at: int, cost: int) -> bool:
        """Whether the limit at ``at`` denied only because of load: at its plain cost there was enough left."""
        for charged in self.charged:
            if charged.at == at:
                by_load = charged.by != BY_CLASS  # a capacity is the backend's, not the client's
                return outcomes[at].retry_us != NEVER and (by_load or outcomes[at].remaining >= cost)
        return False

    def denied(self, outcomes: Sequence[Outcome], cost: int) -> None:
        """A check that passed was denied: unless that is for want of capacity, it asked nothing of the backend."""
        if self.gate is not None and self.is_own(outcomes, cost):
            self.gate.own += cost

    def denied_unasked(self, outcomes: Sequence[Outcome], cost: int) -> None:
        """The same of one that is known to be denied before it comes to the gate."""
        if self.gate is not None:
            self.gate.offered += cost
            self.denied(outcomes, cost)

    def is_own(self, outcomes: Sequence[Outcome], cost: int) -> bool:
        """Whether a denied check would have been denied however well the backend is: it asks nothing of it then.

        By a limit that is not the backend's, at its plain cost; or as more than the backend can ever do.
        """
        if self.most is not None and cost > self.most:
            return True
        denied = [at for at in self.own if not outcomes[at].allowed]
        return bool(denied) and not all(self.denied_by_price(outcomes, at, cost) for at in denied)

    def _made(self, gate: ClassGate, cost: int) -> tuple[tuple[int, bytes], ...]:
        """For each part of the places (up to a bound) the check: who falls below a limit's part pays one more."""
        prices = [(charged, *charge_of(cost, gate.factors[charged.by])) for charged in self.charged]
        made = []
        for bound in sorted({part for _, _, part in prices if part} | {ALL}):
            params = list(self.params)
            for charged, whole, part in prices:
                factor = gate.factors[charged.by]
                if factor != FULL:
                    # what could pass at its plain cost is never priced beyond what the limit can hold
                    price = max(cost, min(whole + (bound <= part), charged.most))
                    params[charged.at] = priced(params[charged.at], price, factor / FULL)
            made.append((bound, encode_check(cost, params)))
        return tuple(made)


def retry_after_s(gate_pass: GatePass, client: bytes, now_us: int) -> int:
    """When a shed client may come again: its own time within once and twice the policy's, so that not all return
    together.
    """
    base = gate_pass.retry_after_s
    return base + cohort_of(client, now_us // 1_000_000) * (base + 1) // ALL
