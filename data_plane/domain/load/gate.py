"""Who passes, on the hot path: a few comparisons of whole numbers, and nothing at all while a backend is well.

A gate lives as long as the node and is told new factors; what a plan and a route fix is in a ``GatePass``, which is
made with the rulebook and finds its gate at its first request.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from data_plane.domain.load.classes import ALL, FULL, charge_of, cohort_of, spread, threshold_of
from data_plane.domain.load.wire import with_own_cost
from data_plane.domain.outcome import Outcome

SMALLEST = 10_000
"""A hundredth: whoever is admitted at all never pays more than a hundred times."""


class Charged(NamedTuple):
    """A limit whose cost follows the load: its place among the bound limits, and the most it can ever hold."""

    at: int
    by_class: bool
    """By the class's factor (a limit that names the policy), or by the backend's (its capacity)."""
    most: int


class ClassGate:
    """One class of one backend. ``offered`` and ``shed`` are units since the start of the process."""

    __slots__ = (
        "backend", "factor", "limit_factor", "numbered", "offered", "seed", "shed", "threshold", "version", "whole",
    )  # fmt: skip

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.offered = 0
        self.shed = 0
        self.factor = FULL
        self.whole = FULL
        """The backend's factor."""
        self.limit_factor = FULL
        """What limits that name the policy go by: never so low that nothing could pass."""
        self.threshold = ALL
        self.seed = 0
        self.version = 0
        """Rises with every change of a factor."""
        self.numbered = 0

    def set(self, factor: int, whole: int, floor: int, seed: int) -> None:
        """New factors, in millionths."""
        limit_factor = max(factor, floor, SMALLEST)
        whole = max(whole, SMALLEST)
        if (factor, whole, limit_factor) != (self.factor, self.whole, self.limit_factor):
            self.factor, self.whole, self.limit_factor = factor, whole, limit_factor
            self.version += 1
        self.threshold = threshold_of(factor)
        self.seed = seed

    def admits(self, client: bytes, cost: int) -> bool:
        """Whether this client's class, and within it this client's cohort, is admitted."""
        self.offered += cost
        if self.threshold == ALL or cohort_of(client, self.seed) < self.threshold:
            return True
        self.shed += cost
        return False


class GatePass:
    """How the requests of a plan on a route pass their backend's gate."""

    __slots__ = ("_charges", "_charges_of", "backend", "charged", "gate", "params", "priority", "retry_after_s")

    def __init__(
        self, backend: str, priority: int, retry_after_s: int, params: Sequence[bytes], charged: Sequence[Charged]
    ) -> None:
        self.backend = backend
        self.priority = priority
        self.retry_after_s = retry_after_s
        self.params = tuple(params)
        self.charged = tuple(charged)
        self.gate: ClassGate | None = None
        """Found at the first request; then kept."""
        self._charges_of: tuple[int, int] = (-1, -1)
        self._charges: tuple[tuple[int, tuple[bytes, ...]], ...] = ()

    def charges(self, gate: ClassGate, cost: int) -> tuple[bytes, ...] | None:
        """The limits' arguments with what this request costs each; ``None`` while all of them cost what they say."""
        if not self.charged or (gate.whole == FULL and gate.limit_factor == FULL):
            return None
        if self._charges_of != (gate.version, cost):
            self._charges_of = (gate.version, cost)
            self._charges = self._made(gate, cost)
        gate.numbered += 1
        place = spread(gate.numbered)
        for bound, params in self._charges:
            if place < bound:
                return params
        raise AssertionError("the last bound is above every place")

    def shown(self, gate: ClassGate, outcomes: list[Outcome]) -> list[Outcome]:
        """The outcomes as clients see them: what is left is what they can still do at the present price."""
        shown = list(outcomes)
        for charged in self.charged:
            factor = gate.limit_factor if charged.by_class else gate.whole
            if factor != FULL:
                outcome = shown[charged.at]
                shown[charged.at] = msgspec.structs.replace(outcome, remaining=outcome.remaining * factor // FULL)
        return shown

    def _made(self, gate: ClassGate, cost: int) -> tuple[tuple[int, tuple[bytes, ...]], ...]:
        """For each part of the places (up to a bound) the arguments: who falls below a limit's part pays one more."""
        prices = []
        for charged in self.charged:
            whole, part = charge_of(cost, gate.limit_factor if charged.by_class else gate.whole)
            prices.append((charged, whole, part))
        bounds = sorted({part for _, _, part in prices if part} | {ALL})
        made = []
        for bound in bounds:
            params = list(self.params)
            for charged, whole, part in prices:
                price = whole + (1 if bound <= part else 0)
                # what could pass at its plain cost is never priced beyond what the limit can hold
                price = max(cost, min(price, charged.most))
                params[charged.at] = with_own_cost(self.params[charged.at], price)
            made.append((bound, tuple(params)))
        return tuple(made)


def retry_after_s(gate_pass: GatePass, client: bytes, now_us: int) -> int:
    """When a shed client may come again: its own time within once and twice the policy's, so that not all return
    together.
    """
    base = gate_pass.retry_after_s
    return base + cohort_of(client, now_us // 1_000_000) * (base + 1) // ALL
