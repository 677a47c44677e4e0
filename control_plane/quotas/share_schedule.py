"""How shares move without ever exceeding the limit: the loser is cut first, then the winner is raised. No I/O here.

A schedule is steps, oldest first; a step holds for every window that begins at its ``from_us`` or later, until the next
one does. A limit of 1,000 that moves 200 units from region a to b at 10:20, with windows of an hour:

1. before: one step, a 600 and b 400 (:func:`one_step`);
2. the cut: a second step from 10:20, a 400 and b 400 (:func:`retargeted`); it holds from the window of 11:00 on;
3. the raise, once each node says from when on it goes by the cut: a third step from then, here 11:00, a 400 and b 600
   (:func:`acknowledged`); after two windows more the steps before it matter no more (:func:`needed`).

The simulator of regions (``tools/simulate``) moves shares by these functions too.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple, Protocol

import msgspec

from tidegate.contract.calendar import SKEW_US, cycle_us, next_start_us
from tidegate.contract.limits import BUCKET_ALGORITHMS, PARTS, LimitRule, ShareStep, capacity
from tidegate.contract.shares import in_proportion, units_of

Steps = tuple[ShareStep, ...]
MAX_NAMED = 20
"""Nodes that a move waits for, named one by one."""
LOOKS_BACK = frozenset({"sliding_window", "sliding_log"})
"""Algorithms in which the window before still weighs."""


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """Where a limit's shares stand: what nodes have, and what is wanted.

    While ``waiting``, some node has not acknowledged a cut, and ``most`` is what each region may still spend by an
    older version. After that it is what each may have spent in windows that go on until ``over_us``.
    """

    steps: Steps
    target: ShareStep
    waiting: bool = False
    most: dict[str, int] = {}
    over_us: int = 0


class Confirming(Protocol):
    """A connected node or agent, and the newest revision that it acknowledged."""

    @property
    def region(self) -> str:
        """Its region."""
        ...

    @property
    def node(self) -> str:
        """Its name."""
        ...

    @property
    def applied_revision(self) -> int:
        """The revision."""
        ...


class Situation(NamedTuple):
    """What a move waits for, in words; empty where it can go on. ``effective_us``: the latest that a node confirmed."""

    waiting_for: list[str]
    effective_us: int | None
    unconfirmed: list[str]
    """Regions whose nodes applied the cut, but none confirmed from when on it holds."""


def whole_of(rule: LimitRule) -> int:
    """What shares sum to: the capacity of a ``strict`` bucket, whose rate follows; else the limit."""
    return capacity(rule) if _by_capacity(rule) else rule.limit


def has_windows(rule: LimitRule) -> bool:
    """Whether regions own parts of a limit window by window: what was spent in one stays spent, until it is over."""
    return rule.mode == "strict" and rule.algorithm not in BUCKET_ALGORITHMS


def target_of(rule: LimitRule) -> ShareStep:
    """The step that a rule wants, as it is made from the tables."""
    return rule.steps[-1] if rule.steps else ShareStep(limit=rule.limit, shares=rule.shares)


def parts_of(rule: LimitRule) -> ShareStep:
    """The same for clients with figures of their own, in parts."""
    return rule.parts[-1] if rule.parts else ShareStep(limit=PARTS, shares={})


def same_shares(one: ShareStep, other: ShareStep) -> bool:
    """Whether two steps give the same, whenever they begin. A region without an entry owns nothing."""
    return one.limit == other.limit and _given(one) == _given(other)


def one_step(step: ShareStep) -> Schedule:
    """The schedule of shares that do not move: ``step`` holds in every window."""
    first = msgspec.structs.replace(step, from_us=0)
    return Schedule(steps=(first,), target=first)


def rescheduled(
    rule: LimitRule, units: Schedule, parts: Schedule, now_us: int, spenders: Collection[str]
) -> tuple[Schedule, Schedule]:
    """The schedules of a limit's units and of its clients' parts once the limit is as ``rule`` says.

    A move whose target stays goes on. ``spenders``: see :func:`retargeted`.
    """
    was = units.target.limit
    parts = _moved_towards(rule, parts, parts_of(rule), now_us, spenders)
    moves = on_the_way(rule, parts, now_us)
    if was != rule.limit and has_windows(rule) and moves:
        return in_units(rule, parts, now_us), parts
    units = _moved_towards(rule, units, target_of(rule), now_us, spenders)
    if was < rule.limit and units.waiting and rule.parts and rule.algorithm not in BUCKET_ALGORITHMS and not moves:
        # The limit rises again, to less than it was: each region has the part that it had of the larger one, at once.
        units = msgspec.structs.replace(units, steps=(msgspec.structs.replace(units.target, from_us=0),))
    return units, parts


def _moved_towards(
    rule: LimitRule, schedule: Schedule, target: ShareStep, now_us: int, spenders: Collection[str]
) -> Schedule:
    """The schedule as it is if it leads to ``target`` already, else the first part of a move there."""
    if same_shares(schedule.target, target):
        return schedule
    return retargeted(rule, schedule, target, now_us, spenders)


def retargeted(
    rule: LimitRule, schedule: Schedule, target: ShareStep, now_us: int, spenders: Collection[str]
) -> Schedule:
    """The first part of a move to ``target``.

    Where no region will own less than it may still be spending, the target itself. Else the cut: from now on, each
    region has the smallest of its new share, its present one and any that was to come. A limit that falls is felt at
    once (in every window), and what was used beyond it stays as a shortfall; a share that only moves is cut from the
    next window on. Only ``spenders``, regions that ever had a node, can have spent anything.
    """
    schedule = _resized(rule, schedule, sum(target.shares.values()))
    steps = needed(rule, schedule.steps, now_us)
    earlier = schedule.most if _weighs(schedule, now_us) else {}
    most = {region: share for region, share in _largest_shares(steps, earlier).items() if region in spenders}
    if all(target.shares.get(region, 0) >= share for region, share in most.items()):
        return one_step(target)
    shares = {
        region: min(share, *(step.shares.get(region, 0) for step in _ahead(steps, now_us)))
        for region, share in target.shares.items()
    }
    if target.limit < steps[-1].limit:
        cut: Steps = (ShareStep(limit=target.limit, shares=shares),)
    else:
        cut = followed_by(steps, ShareStep(from_us=now_us, limit=target.limit, shares=shares))
    return Schedule(steps=cut, target=target, waiting=True, most=most)


def _resized(rule: LimitRule, schedule: Schedule, size: int) -> Schedule:
    """The schedule of a bucket that has another capacity now: in its steps each region's part of it stays."""
    was = sum(schedule.target.shares.values())
    if not _by_capacity(rule) or not was or was == size:
        return schedule
    steps = tuple(msgspec.structs.replace(one, shares=in_proportion(one.shares, was, size)) for one in schedule.steps)
    most = {region: -(-share * size // was) for region, share in schedule.most.items()}
    return msgspec.structs.replace(schedule, steps=steps, most=most)


def on_the_way(rule: LimitRule, schedule: Schedule, now_us: int) -> bool:
    """Whether shares move, or did so late enough that windows which still weigh were divided otherwise."""
    return _weighs(schedule, now_us) or len(needed(rule, schedule.steps, now_us)) > 1


def in_units(rule: LimitRule, parts: Schedule, now_us: int) -> Schedule:
    """The schedule of a limit's units by that of its parts: each window's division stays, whatever the figure."""
    target = target_of(rule)
    steps = tuple(_in_units(rule, one) for one in needed(rule, parts.steps, now_us))
    if same_shares(parts.steps[-1], parts.target):
        steps = (*steps[:-1], msgspec.structs.replace(target, from_us=steps[-1].from_us))
    most = {region: -(-rule.limit * part // PARTS) for region, part in parts.most.items()}
    return Schedule(steps=steps, target=target, waiting=parts.waiting, most=most, over_us=parts.over_us)


def _in_units(rule: LimitRule, step: ShareStep) -> ShareStep:
    return ShareStep(from_us=step.from_us, limit=rule.limit, shares=units_of(step, rule.limit))


def acknowledged(schedule: Schedule, from_us: int) -> Schedule:
    """The second part, once every cut is acknowledged: the target's shares from ``from_us`` on.

    A window that began before ``from_us`` may have been spent under the old shares, and goes on.
    """
    steps = schedule.steps
    if not same_shares(steps[-1], schedule.target):
        steps = followed_by(steps, msgspec.structs.replace(schedule.target, from_us=from_us))
    return Schedule(steps=steps, target=schedule.target, most=schedule.most, over_us=from_us + SKEW_US)


def cut_again(schedule: Schedule, now_us: int) -> Schedule:
    """The same cut once more: from now on.

    Also a cut that holds in every window gets a step of its own: agents confirm what is new to them.
    """
    *earlier, cut = schedule.steps
    again = msgspec.structs.replace(cut, from_us=now_us)
    return msgspec.structs.replace(schedule, steps=(*(earlier or [cut]), again))


def followed_by(steps: Steps, step: ShareStep) -> Steps:
    """The steps that begin before ``step``, then ``step``; the first of all holds in every earlier window."""
    earlier = tuple(one for one in steps if one.from_us < step.from_us)
    return (*(earlier or (msgspec.structs.replace(steps[0], from_us=0),)), step)


def situation(
    rule: LimitRule,
    schedule: Schedule,
    cut_revision: int,
    freed: Collection[str],
    region_names: Collection[str],
    connected: Sequence[Confirming],
    effects: Mapping[str, int],
) -> Situation:
    """Whether every cut is acknowledged: by all connected nodes, and at least one of each region that loses.

    ``effects`` are the latest instants that nodes of a region confirmed for this cut. A region without a connected node
    cannot acknowledge; where it loses, it holds up the raise until an operator frees its share.
    """
    asked = [node for node in connected if node.region not in freed]
    waiting_for = [
        f"{node.region}/{node.node} has revision {node.applied_revision}, not {cut_revision}"
        for node in asked
        if node.applied_revision < cut_revision
    ]
    alive = {node.region for node in asked}
    losing = sorted(losers(schedule) & set(region_names) - set(freed))
    waiting_for += [f"no node of {region} is connected" for region in losing if region not in alive]
    unconfirmed = []
    if rule.mode == "strict" and not waiting_for:
        unconfirmed = [region for region in losing if region not in effects]
        waiting_for += [f"no node of {region} confirmed from when on its cut holds" for region in unconfirmed]
    if len(waiting_for) > MAX_NAMED:
        waiting_for[MAX_NAMED:] = [f"{len(waiting_for) - MAX_NAMED} more"]
    return Situation(waiting_for, max(effects.values(), default=None), unconfirmed)


def published(rule: LimitRule, units: Schedule, parts: Schedule, since_us: int) -> LimitRule:
    """The rule as nodes get it, with the steps of its shares and of those of clients with figures of their own."""
    shares = limit_units(rule, units.steps[-1])
    of_clients = _client_steps(rule, parts) if rule.parts else ()
    if rule.mode != "strict":
        return msgspec.structs.replace(rule, shares=shares, steps=(), parts=of_clients)
    # what nodes read out of `shares` alone is not repeated as a step
    plain = len(units.steps) == 1 and rule.algorithm not in BUCKET_ALGORITHMS
    steps: Steps = () if plain else units.steps
    return msgspec.structs.replace(rule, shares=shares, steps=steps, parts=of_clients, since_us=since_us)


def _client_steps(rule: LimitRule, schedule: Schedule) -> Steps:
    """What nodes get of a schedule: regional limits know no steps."""
    return schedule.steps if rule.mode == "strict" else (msgspec.structs.replace(schedule.steps[-1], from_us=0),)


def losers(schedule: Schedule) -> set[str]:
    """Regions that may still spend more than they will own: it is their acknowledgement that a raise waits for."""
    return {region for region, share in schedule.most.items() if share > schedule.target.shares.get(region, 0)}


def raise_at_us(rule: LimitRule, acknowledged_us: int) -> int:
    """When a ``regional`` share may rise whose cut every node has applied since ``acknowledged_us``.

    Regional limits exchange nothing and know no steps: a share rises when every window that the old one was spent in
    is over, by the slowest clock. A bucket's tokens are no window's: what was cut is gone at once.
    """
    if rule.algorithm in BUCKET_ALGORITHMS:
        return acknowledged_us
    over_us = next_start_us(rule, acknowledged_us + SKEW_US)
    return next_start_us(rule, over_us) if rule.algorithm in LOOKS_BACK else over_us


def needed(rule: LimitRule, steps: Steps, now_us: int) -> Steps:
    """``steps`` without those that matter no more.

    Gone is what came before a step that began two windows ago, and a step that the next one followed before any window
    began under it. A cut that old may have been acknowledged a moment ago, and until then spent under what came before.
    """
    old_us = now_us - 2 * cycle_us(rule) - SKEW_US
    old = (number for number, step in enumerate(steps) if step.from_us <= old_us and not _is_cut(rule, step))
    first = max(old, default=0)
    kept = [msgspec.structs.replace(steps[first], from_us=0)]
    for step, next_step in zip_longest(steps[first + 1 :], steps[first + 2 :]):
        if next_step is None or next_start_us(rule, step.from_us - 1) <= next_step.from_us:
            kept.append(step)
    return tuple(kept)


def _weighs(schedule: Schedule, now_us: int) -> bool:
    """Whether ``most`` may still be spent, or was in a window that goes on."""
    return schedule.waiting or now_us < schedule.over_us


def _is_cut(rule: LimitRule, step: ShareStep) -> bool:
    """Whether a step leaves a part of the limit to no region: it waits for a raise."""
    return has_windows(rule) and sum(step.shares.values()) < step.limit


def limit_units(rule: LimitRule, step: ShareStep) -> dict[str, int]:
    """A step's shares in units of the limit: of a capacity in proportion, rounded down, so as never to exceed it."""
    if not _by_capacity(rule):
        return step.shares
    whole = max(1, whole_of(rule))
    return {region: share * step.limit // whole for region, share in step.shares.items()}


def _by_capacity(rule: LimitRule) -> bool:
    """Whether shares are parts of a bucket's capacity."""
    return rule.mode == "strict" and rule.algorithm in BUCKET_ALGORITHMS


def _largest_shares(steps: Steps, most: Mapping[str, int]) -> dict[str, int]:
    """The largest share that each region has in any step, or in ``most``."""
    found = dict(most)
    for step in steps:
        for region, share in step.shares.items():
            found[region] = max(found.get(region, 0), share)
    return found


def _ahead(steps: Steps, now_us: int) -> Steps:
    """The step in force and those to come: a raise that has not begun is no share that may be kept."""
    return steps[max((number for number, step in enumerate(steps) if step.from_us <= now_us), default=0) :]


def _given(step: ShareStep) -> dict[str, int]:
    """The shares of a step without those of nothing."""
    return {region: share for region, share in step.shares.items() if share}
