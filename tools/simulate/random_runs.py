"""Random worlds: a seed makes a scenario with shifting demand and faults of every kind, and runs it."""

import math
import random

import msgspec

from data_plane.store.script_host import ScriptHost
from tidegate.contract.limits import BUCKET_ALGORITHMS, Algorithm, Mode
from tools.simulate.checks import Outcome, judge
from tools.simulate.loop import RunawayError
from tools.simulate.scenario import Change, Demand, Expectation, Fault, FaultKind, Network, Scenario
from tools.simulate.world import World

_ALGORITHMS: tuple[Algorithm, ...] = (
    "fixed_window",
    "fixed_window",
    "sliding_window",
    "sliding_window",
    "sliding_log",
    "token_bucket",
    "leaky_bucket",
)
_MODES: tuple[Mode, ...] = ("strict", "strict", "strict", "shared", "shared", "regional")
_FAULTS: tuple[FaultKind, ...] = (
    "cut", "cut", "cut", "cut", "cut", "delay", "kill_node", "kill_node", "kill_agent", "kill_agent", "stop_node",
    "stop_agent", "lose_power", "lose_store", "flush_store", "restore_store",
)  # fmt: skip
_QUIET_WINDOWS = 2
"""At a run's end nothing fails for this many windows, in which one region asks for more than the whole limit."""
_STILL_S = 3.0
_MOST_SKEW_S = 0.5


def random_scenario(seed: int) -> Scenario:
    """The scenario of a seed."""
    chance = random.Random(seed)  # noqa: S311 - a simulation, not a secret
    mode = chance.choice(_MODES)
    algorithm = chance.choice(_ALGORITHMS)
    is_bucket = algorithm in BUCKET_ALGORITHMS
    names = [f"r{number}" for number in range(chance.choice((2, 2, 2, 3, 3, 4)))]
    limit = chance.choice((20, 60, 60, 150, 300)) if algorithm != "sliding_log" else chance.choice((20, 60))
    window_s = chance.choice((4.0, 5.0)) if not is_bucket else chance.choice((1.0, 4.0))
    burst = max(len(names) * 4, limit // chance.choice((1, 2, 4))) if is_bucket else None
    epoch_s = 9.0 if is_bucket else 600.0
    faulty_s = chance.choice((8.0, 12.0))
    busy_s = faulty_s + (_QUIET_WINDOWS + 1) * max(window_s, 4.0)
    busy_s -= busy_s % window_s
    clocks = {name: round(chance.uniform(-_MOST_SKEW_S, _MOST_SKEW_S), 3) for name in names}
    shares = _shares(chance, names)
    # A strict limit is refused on a store that evicts, so that nothing is lost with the key.
    evicting = (chance.choice(names[1:]),) if mode == "strict" and chance.random() < 0.05 else ()
    is_changing = mode == "strict" or (mode == "shared" and is_bucket)
    scenario = Scenario(
        name=f"random-{seed}",
        mode=mode,
        algorithm=algorithm,
        limit=limit,
        window_s=window_s,
        burst=burst,
        regions=shares,
        duration_s=busy_s + _STILL_S,
        still_s=_STILL_S,
        nodes=chance.choice((1, 2, 2)),
        agents=chance.choice((1, 2)),
        seed=seed,
        epoch_s=epoch_s,
        clocks=clocks,
        demand=_demand(chance, names, limit / window_s, faulty_s, busy_s),
        network=msgspec.structs.replace(_network(chance), calm_from_s=busy_s),
        faults=(*_faults(chance, names, faulty_s), *_rare_faults(chance, clocks, faulty_s, evicting)),
        evicting=evicting,
        changes=_changes(chance, names, limit, burst, faulty_s) if is_changing and chance.random() < 0.4 else (),
    )
    return msgspec.structs.replace(scenario, expect=_expectation(scenario))


def run(scenario: Scenario, seed: int, host: ScriptHost) -> Outcome:
    """Run one world and judge it. A world that never ends counts as a violation."""
    world = World(scenario, seed, host)
    try:
        world.run()
    except RunawayError as error:
        outcome = judge(world, seed)
        return outcome._replace(violations=(*outcome.violations, str(error)))
    return judge(world, seed)


def _expectation(scenario: Scenario) -> Expectation:
    """After healing, the last whole window must be used up again: no rights are lost beyond their id."""
    last = int((scenario.duration_s - scenario.still_s) // scenario.window_s) - 1
    if scenario.mode == "regional" or (scenario.mode == "strict" and scenario.algorithm != "fixed_window"):
        return Expectation()
    if scenario.algorithm in BUCKET_ALGORITHMS:
        # Shared buckets may be paying off what was admitted too much.
        return Expectation()
    if scenario.evicting:
        return Expectation()
    if scenario.mode == "shared" and scenario.network.loss > 0.1:
        # Each lost message costs 1.5 s: now and then a peer is unreachable, and its share is kept for it.
        return Expectation()
    if scenario.mode == "strict":
        # Halves of what each peer has, one peer at a time: the window must be long enough for so many round trips.
        questions = (len(scenario.regions) - 1) * math.log2(scenario.limit)
        network = scenario.network
        trip_s = 2e-3 * (network.delay_ms + network.jitter_ms) * (1 + 30 * network.loss + 40 * network.spikes)
        if questions * trip_s > 0.5 * scenario.window_s:
            return Expectation()
    return Expectation(least_used={str(last): 0.9 if scenario.algorithm == "fixed_window" else 0.5})


def _shares(chance: random.Random, names: list[str]) -> dict[str, int]:
    if chance.random() < 0.5:
        return dict.fromkeys(names, 1)
    return {name: chance.choice((1, 1, 2, 5, 10)) for name in names}


def _network(chance: random.Random) -> Network:
    delay_ms = chance.choice((5.0, 40.0, 75.0, 150.0))
    return Network(
        delay_ms=delay_ms,
        jitter_ms=delay_ms * chance.choice((0.0, 0.1, 0.9)),
        spikes=chance.choice((0.0, 0.0, 0.05)),
        loss=chance.choice((0.0, 0.02, 0.2)),
        duplicates=chance.choice((0.0, 0.05, 0.5)),
    )


def _demand(
    chance: random.Random, names: list[str], rate: float, faulty_s: float, duration_s: float
) -> tuple[Demand, ...]:
    """Demand of about twice the limit, mostly in one region that changes; at the end all in the first region."""
    found = []
    at_s = 0.0
    while at_s < faulty_s:
        until_s = min(faulty_s, at_s + chance.uniform(2.0, 10.0))
        hot = chance.choice(names)
        skew = chance.choice((0.3, 0.7, 0.95))
        whole = rate * chance.choice((0.5, 1.5, 2.0, 3.0))
        for name in names:
            part = skew if name == hot else (1 - skew) / max(1, len(names) - 1)
            cost = chance.choice((1, 1, 1, 3))
            found.append(Demand(region=name, per_second=whole * part / cost, from_s=at_s, until_s=until_s, cost=cost))
        if chance.random() < 0.3:
            found.append(Demand(region=hot, burst=round(rate), from_s=chance.uniform(at_s, until_s)))
        at_s = until_s
    found.append(Demand(region=names[0], per_second=3 * rate, from_s=faulty_s, until_s=duration_s))
    return tuple(found)


def _faults(chance: random.Random, names: list[str], faulty_s: float) -> tuple[Fault, ...]:
    found = []
    for _ in range(chance.choice((0, 1, 2, 4))):
        at_s = round(chance.uniform(0.5, faulty_s - 1), 3)
        until_s = round(min(faulty_s, at_s + chance.choice((0.5, 2.0, 6.0, 15.0))), 3)
        kind = chance.choice(_FAULTS)
        if kind == "cut":
            found.append(_cut(chance, names, at_s, until_s))
            continue
        by_s = chance.uniform(0.5, 3.0) if kind == "delay" else chance.uniform(0.3, 2.0)
        found.append(Fault(kind=kind, at_s=at_s, until_s=until_s, region=chance.choice(names), by_s=by_s))
    return tuple(found)


def _cut(chance: random.Random, names: list[str], at_s: float, until_s: float) -> Fault:
    """A cut of one region from all others, of all from all, or between two, maybe in one direction."""
    region = chance.choice(names)
    rest = tuple(name for name in names if name != region)
    one_way = False
    match chance.choice(("one", "one", "all", "two", "one way")):
        case "one":
            groups: tuple[tuple[str, ...], ...] = ((region,), rest)
        case "all":
            groups = tuple((name,) for name in names)
        case kind:
            groups, one_way = ((region,), (chance.choice(rest),)), kind == "one way"
    return Fault(kind="cut", at_s=at_s, until_s=until_s, groups=groups, one_way=one_way)


def _rare_faults(
    chance: random.Random, clocks: dict[str, float], faulty_s: float, evicting: tuple[str, ...]
) -> tuple[Fault, ...]:
    """Clocks that are set, resets, evicted keys, and processes without the control plane."""
    found = [
        Fault(kind="evict", at_s=round(chance.uniform(0.5, faulty_s), 3), region=region) for region in evicting * 3
    ]
    names = list(clocks)
    for name in chance.sample(names, chance.choice((0, 0, 0, 1, 2))):
        by_s = round(chance.uniform(-_MOST_SKEW_S, _MOST_SKEW_S) - clocks[name], 3)
        found.append(Fault(kind="step_clock", at_s=round(chance.uniform(0.5, faulty_s), 3), region=name, by_s=by_s))
    for _ in range(chance.choice((0, 0, 0, 1, 2))):
        at_s = chance.uniform(0.5, faulty_s - 1)
        found.append(Fault(kind="reset", at_s=round(at_s, 3)))
    if chance.random() < 0.25:
        at_s, region = round(chance.uniform(0.5, faulty_s - 1), 3), chance.choice(names)
        only = chance.choice(("", "n0", "a0"))
        found.append(Fault(kind="unreachable_config", at_s=at_s, until_s=faulty_s, region=region, only=only))
    return tuple(found)


def _changes(
    chance: random.Random, names: list[str], limit: int, burst: int | None, faulty_s: float
) -> tuple[Change, ...]:
    """Shares move, the limit and a bucket's burst change, or all together, once or twice."""
    return tuple(
        Change(
            at_s=round(chance.uniform(1, faulty_s * 0.6), 3),
            limit=chance.choice((limit, limit, limit // 2, limit * 3 // 2)),
            shares={name: chance.choice((1, 3, 10)) for name in names},
            burst=None if burst is None else chance.choice((burst, burst // 2, burst * 2)),
        )
        for _ in range(chance.choice((1, 1, 2)))
    )
