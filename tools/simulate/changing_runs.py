"""Random worlds in which limit and shares of a sliding window or a bucket change while processes and stores fail."""

import random

from tidegate.contract.limits import Algorithm, Mode
from tools.simulate.scenario import Change, Demand, Fault, FaultKind, Network, Scenario

NAME = "changing"
"""The argument of `python -m tools.simulate` that runs worlds of a `strict` sliding window."""
BUCKETS = "changing-buckets"
"""The argument that runs worlds of slow buckets, for minutes."""
_BUCKETS: tuple[tuple[Mode, Algorithm], ...] = (
    ("strict", "token_bucket"),
    ("strict", "leaky_bucket"),
    ("shared", "token_bucket"),
    ("shared", "leaky_bucket"),
)
_DYING: tuple[FaultKind, ...] = ("kill_node", "kill_node", "kill_agent", "stop_node", "stop_agent", "lose_power")
_LOSING: tuple[FaultKind, ...] = ("restore_store", "restore_store", "restore_store", "lose_store", "flush_store")


def changing_scenario(seed: int) -> Scenario:
    """The scenario of a seed: around each change processes die, and stores restart."""
    chance = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    names = ["east", "west", "south"][: chance.choice((2, 3, 3))]
    window_s = chance.choice((3.0, 3.0, 4.0, 5.0))
    changes: list[Change] = []
    faults: list[Fault] = []
    duration_s = chance.choice((12, 15, 18))
    at_s = chance.uniform(2, 5)
    while at_s < duration_s - 4:
        limit = chance.choice((60, 100, 120, 150, 200, 300))
        changes.append(Change(at_s=round(at_s, 3), limit=limit, shares=_shares(chance, names)))
        faults += _faults(chance, names, at_s)
        at_s += chance.uniform(3, 8)
    delay_ms = chance.choice((5.0, 40.0, 75.0))
    clocks = {name: round(chance.uniform(-0.2, 0.2), 3) for name in names} if chance.random() < 0.5 else {}
    return Scenario(
        name=f"{NAME}-{seed}",
        algorithm="sliding_window",
        limit=150,
        window_s=window_s,
        duration_s=duration_s,
        seed=seed,
        regions=_shares(chance, names),
        clocks=clocks,
        demand=tuple(
            Demand(region=name, per_second=chance.choice((20, 40, 60)), cost=chance.choice((1, 1, 1, 2)))
            for name in names
        ),
        network=Network(
            delay_ms=delay_ms, jitter_ms=delay_ms * chance.choice((0.1, 0.5)), loss=chance.choice((0.0, 0.0, 0.05))
        ),
        changes=tuple(changes),
        faults=tuple(faults),
    )


def changing_buckets(seed: int) -> Scenario:
    """The same of a bucket, whose epochs may get another length: one region is silent for a minute, then others are."""
    chance = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    mode, algorithm = chance.choice(_BUCKETS)
    names = ["east", "west", "south"][: chance.choice((2, 3))]
    limits, bursts = (20, 60, 200), (12, 60, 300, 600)
    limit, silent_s = chance.choice(limits), chance.uniform(60, 80)
    changes: list[Change] = []
    faults: list[Fault] = []
    at_s = chance.uniform(5, 60)
    while at_s < 100:
        burst = chance.choice((None, *bursts))
        changes.append(
            Change(at_s=round(at_s, 3), limit=chance.choice(limits), burst=burst, shares=_shares(chance, names))
        )
        faults += _faults(chance, names, at_s)
        at_s += chance.uniform(3, 60)
    demand = [Demand(region=names[0], per_second=limit / 20, until_s=silent_s + 10)]
    for name in names[1:]:
        demand.append(Demand(region=name, burst=limit, from_s=silent_s))
        demand.append(Demand(region=name, per_second=limit / 20, from_s=silent_s))
    return Scenario(
        name=f"{BUCKETS}-{seed}",
        mode=mode,
        algorithm=algorithm,
        limit=limit,
        window_s=60.0,
        burst=chance.choice(bursts),
        duration_s=120,
        epoch_s=chance.choice((30.0, 90.0, 600.0)),
        seed=seed,
        regions=_shares(chance, names),
        clocks={name: round(chance.uniform(-0.4, 0.4), 3) for name in names},
        demand=tuple(demand),
        network=Network(delay_ms=40.0, jitter_ms=20.0, loss=chance.choice((0.0, 0.0, 0.05))),
        changes=tuple(changes),
        faults=tuple(faults),
    )


def _shares(chance: random.Random, names: list[str]) -> dict[str, int]:
    return {name: chance.choice((1, 1, 2, 4, 10)) for name in names}


def _faults(chance: random.Random, names: list[str], change_s: float) -> list[Fault]:
    """Faults from a second before a change to four seconds after it."""
    found: list[Fault] = []

    def near_s() -> float:
        return round(max(0.5, change_s + chance.uniform(-1, 4)), 3)

    for _ in range(chance.choice((1, 1, 2))):
        kind, at_s = chance.choice(_DYING), near_s()
        region, node, lasts_s = chance.choice(names), chance.choice((0, 1)), chance.uniform(0.3, 5)
        found.append(Fault(kind=kind, region=region, node=node, at_s=at_s, until_s=round(at_s + lasts_s, 3)))
    for _ in range(chance.choice((1, 1, 2))):
        kind, region, at_s = chance.choice(_LOSING), chance.choice(names), near_s()
        found.append(Fault(kind=kind, region=region, at_s=at_s, by_s=chance.choice((0.0, 0.0, 0.1, 0.3, 1.0))))
    return found
