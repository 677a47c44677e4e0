"""What passing a protected backend's gate costs a decision: CPU from an understood check to what the store is asked.

``python -m tools.bench.gate``. The store discards; the smallest of many repetitions of each variant, taken in
turn, is shown.
"""

import time
from typing import Any

from data_plane.config.index import RuleIndex
from data_plane.config.load_gate import FULL
from data_plane.decide.check_resolution import Anonymous
from data_plane.decide.decider import Decider
from data_plane.decide.decision_tally import Tally
from data_plane.decide.pending_check import CHECK_SLOTS, PendingCheck
from data_plane.load.controller import BackendFactors, ControlState
from data_plane.load.following import Gates
from data_plane.store.subject_bounds import SubjectBounds
from testing.node import document_of, key_of
from tidegate.contract.config import Client, Endpoint, Plan
from tidegate.contract.decision import CheckRequest
from tidegate.contract.limits import LimitRule
from tidegate.contract.load import AdaptivePolicy, Backend

NOW_US = 1_900_000_000_000_000
PLENTY = 10**9
REQUEST = CheckRequest(api_key="tg_x", method="GET", path="/users/1")
# Cohorts up to this share are admitted: high enough for the client here, low enough that it has to be looked up.
NEARLY_ALL = 999_999


class _Store:
    def submit(self, check: Any) -> None: ...
    def submit_all(self, checks: Any) -> None: ...


class _Clock:
    def now_us(self) -> int:
        return NOW_US


class _Asked(PendingCheck):
    __slots__ = CHECK_SLOTS

    def decided(self, result: Any, now_us: int) -> None: ...


def decider(policy: bool, *, admitted: int = FULL, floor: int = FULL) -> Decider:
    """A decider whose one plan, route and limit are under a policy or not, and under these factors."""
    rule = LimitRule(
        id=1, name="hourly", limit=PLENTY, window_us=3_600_000_000, mode="regional", shares={"r": PLENTY},
        adaptive="protect",
    )  # fmt: skip
    values = [
        Endpoint(endpoint="users", method="GET", path="/users/{id}", backend="users"),
        Backend(backend="users", adaptive="protect" if policy else None),
        AdaptivePolicy(policy="protect"),
        Plan(plan="free", priority=10, limits=(rule,)),
        Client(client="acme", plan="free"),
        key_of("acme", "tg_x"),
    ]
    index = RuleIndex.empty("r").with_changes(map(document_of, values))
    gates = Gates()
    made = Decider(index, _Store(), _Clock(), None, Tally(), Anonymous(), None, SubjectBounds(), gates)  # type: ignore[arg-type]
    factors = BackendFactors(
        backend="users", policy="protect", whole=FULL, classes={10: admitted}, floor=floor, reserve=0, demand={},
        state=ControlState(),
    )  # fmt: skip
    gates.apply([factors], NOW_US)
    return made


def once_ns(made: Decider, count: int) -> float:
    """Nanoseconds of CPU a check, of ``count``."""
    make_ready = made.make_ready
    began = time.process_time_ns()
    for _ in range(count):
        check = _Asked()
        check.decider, check.request, check.asked_us = made, REQUEST, NOW_US
        make_ready(check)
    return (time.process_time_ns() - began) / count


def measure(repetitions: int = 40, count: int = 5_000) -> dict[str, float]:
    """The smallest figure of each variant, in nanoseconds."""
    priced = decider(policy=True, admitted=NEARLY_ALL, floor=400_000)
    variants = {
        "no policy": decider(policy=False),
        "a policy, all is well": decider(policy=True),
        "the boundary class: a cohort is looked up": decider(policy=True, admitted=NEARLY_ALL, floor=FULL),
        "and its limits are priced": priced,
    }
    smallest = dict.fromkeys(variants, float("inf"))
    for _ in range(repetitions):
        for name, made in variants.items():
            smallest[name] = min(smallest[name], once_ns(made, count))
    return smallest


def main() -> None:
    figures = measure()
    plain = figures["no policy"]
    for name, ns in figures.items():
        print(f"{name:44} {ns:7.0f} ns  {ns - plain:+6.0f} ns")


if __name__ == "__main__":
    main()
