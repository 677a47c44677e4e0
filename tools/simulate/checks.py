"""Whether a run kept its promise, and what it achieved."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from data_plane.replicate.count_store import TIMING
from tidegate.contract.calendar import WindowGrid, grid_of, id_at, start_us
from tidegate.contract.limits import BUCKET_ALGORITHMS, LimitRule, capacity
from tidegate.contract.shares import split
from tools.simulate.convergence import disagreements
from tools.simulate.record import Admission, Record
from tools.simulate.scenario import Scenario
from tools.simulate.world import World


class WindowUse(NamedTuple):
    """Units admitted in the ``number``-th window of the run, and the limit in force."""

    number: int
    admitted: int
    limit: int


class Outcome(NamedTuple):
    """The result of a run. ``overshoot`` and ``bound`` are the most units over the limit, seen and allowed."""

    scenario: str
    kind: str
    """Mode and algorithm."""
    seed: int
    violations: tuple[str, ...]
    windows: tuple[WindowUse, ...]
    admitted: dict[str, int]
    denied: dict[str, int]
    overshoot: int
    bound: int
    messages: int
    transfers: int
    stale_s: float
    refusals: dict[str, int]
    faults: dict[str, int]
    """The number of faults of each kind."""


def judge(world: World, seed: int) -> Outcome:
    """Check what the mode promises and what the scenario expects."""
    scenario, record = world.scenario, world.record
    grid = grid_of(world.scenario.rule())
    overshoot, bound = _overshoot(world, grid), _bound(world)
    violations = []
    if overshoot > bound:
        violations.append(f"{overshoot} units over the limit, {bound} allowed")
    windows = _windows(world, grid)
    violations += _expected(scenario, record, windows)
    if scenario.still_s:
        violations += disagreements(world)
    admitted = dict.fromkeys(scenario.regions, 0)
    for one in record.admitted:
        admitted[one.region] += one.cost
    return Outcome(
        scenario.name,
        f"{scenario.mode} {scenario.algorithm}",
        seed,
        tuple(violations),
        windows,
        admitted,
        dict(record.denied),
        overshoot,
        bound,
        sum(record.messages.values()),
        record.transfers,
        record.most_stale_us / 1e6,
        dict(record.refusals),
        dict(Counter(fault.kind for fault in scenario.faults)),
    )


def _overshoot(world: World, grid: WindowGrid) -> int:
    """The most that was ever admitted beyond the limit; 0 when it held."""
    scenario = world.scenario
    if scenario.algorithm in BUCKET_ALGORITHMS:
        return _bucket_overshoot(world)
    in_force = world.control.limit_in_force
    totals = world.record.admitted_by_id()
    if scenario.algorithm == "sliding_log" and scenario.mode != "shared":
        return _log_overshoot(world, grid)
    worst = max((total - in_force(id) for (_, id), total in totals.items()), default=0)
    if scenario.algorithm != "sliding_window":
        # A shared log knows the others by window only, so what it promises for the world is by window too.
        return max(0, worst)
    return max(0, worst, _sliding_overshoot(world, grid))


def _sliding_overshoot(world: World, grid: WindowGrid) -> int:
    """f U(w-1) + U(w) beyond f L(w-1) + (1-f) L(w), by the clock that is farthest ahead.

    A limit that rises counts at once and for all that is weighed: L(w-1) is then the risen one.
    """
    ahead_us = max(region.most_ahead_us for region in world.regions.values())
    totals: dict[tuple[int, int], int] = {}
    worst = 0
    length_us = grid.length_us
    in_force = world.control.limit_in_force
    for one in world.record.admitted:
        name = (one.generation, one.id)
        totals[name] = totals.get(name, 0) + one.cost
        now_us = one.at_us + ahead_us
        id = id_at(grid, now_us)
        left_us = length_us - (now_us - start_us(grid, id))
        used = totals.get((one.generation, id - 1), 0) * left_us + totals.get((one.generation, id), 0) * length_us
        allowed = max(in_force(id - 1), in_force(id)) * left_us + in_force(id) * (length_us - left_us)
        worst = max(worst, -(-(used - allowed) // length_us))
    return worst


def _log_overshoot(world: World, grid: WindowGrid) -> int:
    """The most units over the limit in any interval of a window's length, by the stamps of one generation."""
    worst = 0
    by_generation: dict[int, list[Admission]] = {}
    for one in world.record.admitted:
        by_generation.setdefault(one.generation, []).append(one)
    for entries in by_generation.values():
        entries.sort(key=lambda one: one.stamp_us)
        oldest = total = 0
        for one in entries:
            total += one.cost
            while entries[oldest].stamp_us + grid.length_us <= one.stamp_us:
                total -= entries[oldest].cost
                oldest += 1
            limit = max(world.control.limit_in_force(one.id - 1), world.control.limit_in_force(one.id))
            worst = max(worst, total - limit)
    return worst


def _bucket_overshoot(world: World) -> int:
    """The most by which any interval t admitted beyond burst + rate x t: the debt of one exact bucket for the world.

    Its figures are the largest that a process may go by. When they fall, it keeps the tokens that it has room for.
    """
    unit = world.scenario.rule().window_us or 1
    coming = [(from_us, _largest(rules)) for from_us, rules in world.control.rules_in_force]
    rate, size = coming[0][1]
    debt: dict[int, tuple[int, int]] = {}
    worst = 0
    # a node that stood still notes late what it admitted before
    for one in sorted(world.record.admitted, key=lambda one: one.at_us):
        while coming and coming[0][0] <= one.at_us:
            at_us, (next_rate, next_size) = coming.pop(0)
            gone = max(0, size - next_size) * unit
            debt = {of: (at_us, max(0, owed - rate * (at_us - was_us) - gone)) for of, (was_us, owed) in debt.items()}
            rate, size = next_rate, next_size
        since_us, owed = debt.get(one.generation, (one.at_us, 0))
        owed = max(0, owed - rate * (one.at_us - since_us)) + one.cost * unit
        debt[one.generation] = (one.at_us, owed)
        worst = max(worst, -(-(owed - size * unit) // unit))
    return worst


def _largest(rules: Collection[LimitRule]) -> tuple[int, int]:
    """The largest limit and capacity of some rules."""
    return max(max(1, rule.limit) for rule in rules), max(capacity(rule) for rule in rules)


def _bound(world: World) -> int:
    """Units beyond the limit that the mode allows."""
    scenario = world.scenario
    stepped = _time_that_never_was(world)
    if scenario.mode == "strict":
        return stepped
    if scenario.mode == "regional":
        # nothing but the region's store knows what was admitted there
        shares = split(capacity(scenario.rule()), scenario.regions)
        return stepped + sum(times * shares[region] for region, times in world.record.lost_stores.items())
    regions = len(scenario.regions)
    record = world.record
    age_us = TIMING.stale_after_us + TIMING.lazy_us + record.most_delay_us
    lost = sum(record.lost_stores.values())
    rule = scenario.rule()
    if scenario.algorithm in BUCKET_ALGORITHMS:
        limit, size = _largest(_all_rules(world))
        return (regions - 1 + lost) * (size + limit * age_us // (rule.window_us or 1) + 1) + stepped
    most = {region: _busiest(record.arrivals[region], age_us) for region in scenario.regions}
    unseen = sum(most.values()) - min(most.values())
    share = {
        region: max(1, scenario.limit * part // sum(scenario.regions.values()))
        for region, part in scenario.regions.items()
    }
    forgotten = sum(times * (most[region] + share[region]) for region, times in record.lost_stores.items())
    # What rounding keeps for the silent is at least what they take: it never adds.
    return min((regions - 1 + lost) * scenario.limit, unseen + forgotten)


def _time_that_never_was(world: World) -> int:
    """Units that buckets gain when clocks are set forward, as for them that time has passed."""
    rule = world.scenario.rule()
    if rule.algorithm not in BUCKET_ALGORITHMS:
        return 0
    limit, _ = _largest(_all_rules(world))
    stepped_us = sum(region.stepped_forward_us for region in world.regions.values())
    return -(-limit * stepped_us // (rule.window_us or 1))


def _all_rules(world: World) -> list[LimitRule]:
    return [rule for _, rules in world.control.rules_in_force for rule in rules]


def _busiest(arrivals: list[tuple[int, int]], interval_us: int) -> int:
    """The most units that arrived in any interval of this length."""
    worst = total = oldest = 0
    for at_us, cost in arrivals:
        total += cost
        while arrivals[oldest][0] + interval_us < at_us:
            total -= arrivals[oldest][1]
            oldest += 1
        worst = max(worst, total)
    return worst


def _windows(world: World, grid: WindowGrid) -> tuple[WindowUse, ...]:
    """Units by window of the run. Buckets: by window's length of true time."""
    scenario = world.scenario
    window_us = round(scenario.window_s * 1e6)
    count = int(scenario.duration_s // scenario.window_s)
    if scenario.algorithm in BUCKET_ALGORITHMS:
        starts = [world.start_us + number * window_us for number in range(count + 1)]
        times = [one.at_us for one in world.record.admitted]
        sums = [0]
        for one in world.record.admitted:
            sums.append(sums[-1] + one.cost)
        edges = [sums[bisect_left(times, start)] for start in starts]
        return tuple(WindowUse(number, edges[number + 1] - edges[number], scenario.limit) for number in range(count))
    first = id_at(grid, world.start_us)
    totals: dict[int, int] = {}
    for (_, id), total in world.record.admitted_by_id().items():
        totals[id] = totals.get(id, 0) + total
    in_force = world.control.limit_in_force
    return tuple(WindowUse(number, totals.get(first + number, 0), in_force(first + number)) for number in range(count))


def _wanted(scenario: Scenario, window: WindowUse) -> int:
    """The limit that all regions go by before a window is over: what falls is felt at once."""
    ends_s = (window.number + 1) * scenario.window_s
    changes = sorted((change for change in scenario.changes if change.at_s <= ends_s), key=lambda change: change.at_s)
    return min(window.limit, changes[-1].limit if changes else scenario.limit)


def _expected(scenario: Scenario, record: Record, windows: tuple[WindowUse, ...]) -> list[str]:
    """The scenario's own expectations that the run did not meet."""
    expect = scenario.expect
    admitted: Counter[str] = Counter()
    for one in record.admitted:
        admitted[one.region] += one.cost
    least = [
        (f"admitted in window {number}", windows[int(number)].admitted, part * _wanted(scenario, windows[int(number)]))
        for number, part in expect.least_used.items()
    ]
    least += [(f"admitted by {region}", admitted[region], units) for region, units in expect.least_admitted.items()]
    most: list[tuple[str, float, float | None]] = [
        ("messages", sum(record.messages.values()), expect.most_messages),
        ("transfers", record.transfers, expect.most_transfers),
        ("seconds that a count was unknown", record.most_stale_us / 1e6, expect.settled_within_s),
        ("admitted in all", sum(admitted.values()), expect.most_over_windows),
    ]
    most += [
        (f"admitted in window {number}", windows[int(number)].admitted, units)
        for number, units in expect.most_admitted.items()
    ]
    most += [(f"denied by {region}", record.denied[region], units) for region, units in expect.most_denied.items()]
    found = [f"{what}: {got:g}, at least {want:g} expected" for what, got, want in least if got < want]
    found += [
        f"{what}: {got:g}, at most {want:g} expected" for what, got, want in most if want is not None and got > want
    ]
    return found
