"""Limit rules as they travel from the control plane to the nodes, and what makes one acceptable.

Units live in names: ``window_us`` and ``anchor_us`` are microseconds, ``limit`` and ``burst`` are units of cost.
"""

import math
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Literal, NamedTuple

import msgspec

Algorithm = Literal["fixed_window", "sliding_window", "sliding_log", "token_bucket", "leaky_bucket"]
Mode = Literal["regional", "shared", "strict"]
OnStoreFailure = Literal["local", "open", "closed"]
Calendar = Literal["minute", "hour", "day", "week", "month"]

WINDOW_ALGORITHMS = frozenset({"fixed_window", "sliding_window", "sliding_log"})
BUCKET_ALGORITHMS = frozenset({"token_bucket", "leaky_bucket"})

LIMIT_NAME = re.compile(r"[a-z0-9._-]{1,64}")
ATTRIBUTE_NAME = re.compile(r"[a-z0-9_-]{1,64}")
PLAIN_DIMENSIONS = ("client", "ip", "endpoint", "backend", "global")

MAX_SLIDING_LOG_LIMIT = 1_000
MAX_LIMIT = 10**12
PARTS = MAX_LIMIT
"""Of so many parts a limit is, where its division must not depend on its figures: so an override is divided."""
MAX_WINDOW_US = 366 * 86_400 * 1_000_000
# Scripts compute in doubles. Below 2**50 a product of a count and a time is exact with three bits to spare,
# so that Lua and Python agree to the unit.
EXACT = 2**50

CALENDAR_US: dict[str, int] = {
    "minute": 60_000_000,
    "hour": 3_600_000_000,
    "day": 86_400_000_000,
    "week": 604_800_000_000,
}
MONDAY_US = 4 * 86_400_000_000
"""1970-01-05T00:00:00Z: the anchor of calendar weeks unless a limit names its own."""
LAST_ANCHOR_DAY = 28
"""The last day that every month has: a month that is anchored on a later one begins there."""


class Match(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which requests a limit applies to; an empty member matches all."""

    endpoints: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    attributes: dict[str, str] = {}


class ShareStep(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Regional shares of a ``strict`` limit in force under every window id that begins at ``from_us`` or later.

    ``from_us`` is microseconds since the epoch; 0 holds for all ids. ``shares`` are whole units a region: of ``limit``
    for windows and logs, of ``capacity`` for buckets (their rate follows); a region without an entry owns nothing.
    They sum to at most that whole. ``limit`` is the limit's own figure under those ids.
    """

    from_us: int = 0
    limit: int
    shares: dict[str, int]


class LimitRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One limit: at most ``limit`` units a window for each subject that ``scope`` makes.

    ``id`` names the stored state: the control plane gives a new one when algorithm or window change (which starts
    afresh) and keeps it when ``limit`` or ``burst`` change (which keeps what was used). Exactly one of ``window_us``
    and ``calendar`` is set. ``anchor_us`` is an instant, in microseconds since the epoch, at which a calendar window
    begins. ``burst`` belongs to buckets and defaults to ``limit``. ``shares`` are whole units a region.
    """

    id: int
    name: str
    scope: str = "client"
    algorithm: Algorithm = "sliding_window"
    limit: int
    window_us: int | None = None
    calendar: Calendar | None = None
    anchor_us: int = 0
    burst: int | None = None
    match: Match = Match()
    mode: Mode = "shared"
    shares: dict[str, int] = {}
    steps: tuple[ShareStep, ...] = ()
    """How the shares of a ``strict`` limit change over window ids, oldest first; without any, ``shares`` hold for all.

    Who moves shares publishes two revisions. First the cut: the steps so far and one with ``from_us`` now, in which
    each region has the smaller of its old and its new share. (Where the limit itself falls: ``from_us`` 0 and no older
    step; a lowered limit is felt at once, and what was used beyond it stays as a shortfall.) Every live node answers
    with ``Ack.effective``. Then the raise: one step more, with the new shares, from the largest of these instants.
    Where no region's share falls, one revision that replaces all steps does. Steps before one that began two windows
    ago (buckets: two epochs of ``max(600 s, 3 x capacity / rate)``) may be dropped; a node reads the newest eight.
    """
    parts: tuple[ShareStep, ...] = ()
    """How clients with figures of their own share a limit that is divided: steps as above, of ``PARTS`` (their
    ``limit``). A change of ``limit`` or ``burst`` changes nothing here. Without any, theirs are in proportion to
    ``shares``.
    """
    since_us: int = 0
    """When this ``id`` was given, microseconds since the epoch; 0: long ago, or unknown.

    A store whose epoch began later may have forgotten what a ``strict`` limit admitted. It owns nothing of the limit
    until the window in which its epoch began is over. So a new limit wants this.
    """
    on_store_failure: OnStoreFailure = "local"
    shadow: bool = False
    priority: int = 0
    adaptive: str | None = None
    headline: bool = False
    visible: bool | None = None
    """``None`` means the default: shown unless the scope holds ``global`` or ``backend``."""


class Violation(NamedTuple):
    """What is wrong with one field, in words for the person who wrote it."""

    field: str
    message: str


def dimensions(scope: str) -> tuple[str, ...]:
    """Split ``client+endpoint`` into its dimensions, in the order written."""
    return tuple(scope.split("+"))


def is_visible(rule: LimitRule) -> bool:
    """Whether end clients see this limit in headers: not where it would show other people's traffic."""
    if rule.visible is not None:
        return rule.visible
    return not {"global", "backend"} & set(dimensions(rule.scope))


def capacity(rule: LimitRule) -> int:
    """The most that one subject can ever hold, and so the largest cost that can ever pass.

    A leaky bucket serves one while ``burst`` wait, so it holds one more.
    """
    if rule.algorithm == "token_bucket":
        return rule.limit if rule.burst is None else rule.burst
    if rule.algorithm == "leaky_bucket":
        return 1 + (rule.limit if rule.burst is None else rule.burst)
    return rule.limit


def part_of(rule: LimitRule, limit: int, holds: int) -> LimitRule:
    """The rule with a part of its limit; a bucket ``holds`` so much, of which a leaky one serves one at once."""
    burst = max(0, holds - (rule.algorithm == "leaky_bucket")) if rule.algorithm in BUCKET_ALGORITHMS else None
    return msgspec.structs.replace(rule, limit=limit, burst=burst)


def nominal_window_us(rule: LimitRule) -> int:
    """The window's length; for months, which differ, the longest."""
    if rule.calendar is not None:
        return CALENDAR_US.get(rule.calendar, 31 * 86_400_000_000)
    if rule.window_us is None:
        raise ValueError(f"limit {rule.name!r} has neither window_us nor calendar")
    return rule.window_us


def reduced_rate(limit: int, window_us: int) -> tuple[int, int]:
    """``limit / window_us`` in lowest terms: (units, microseconds)."""
    shared = math.gcd(limit, window_us)
    return limit // shared, window_us // shared


def bucket_rate(rule: LimitRule) -> tuple[int, int]:
    """A bucket's rate: (units, microseconds). A part of a sound rule may need the next slower one, to be exact."""
    rate, unit = reduced_rate(rule.limit, nominal_window_us(rule))
    return (rate, unit) if capacity(rule) * unit < EXACT else exact_rate(Fraction(rate, unit), capacity(rule))


def exact_rate(rate: Fraction, size: int) -> tuple[int, int]:
    """The fastest rate up to ``rate`` that a bucket of that size counts exactly: (units, microseconds)."""
    most = (EXACT - 1) // max(1, size)
    units, unit_us = rate.limit_denominator(most).as_integer_ratio()
    if units * rate.denominator > rate.numerator * unit_us:  # take the neighbour below, in the Farey sequence of most
        below_us = pow(units, -1, unit_us)
        below_us += (most - below_us) // unit_us * unit_us
        units, unit_us = (units * below_us - 1) // unit_us, below_us
    return (units, unit_us) if units or not rate else (1, most)


def sliding_tick_us(limit: int, window_us: int) -> int:
    """The time step of a sliding window: 1 us, or the smallest power of ten that keeps ``limit x window`` exact."""
    tick = 1
    while limit * (window_us // tick) >= EXACT:
        tick *= 10
    return tick


def violations(rule: LimitRule) -> Iterator[Violation]:
    """Yield what makes ``rule`` unacceptable, field by field; nothing when it is sound."""
    if not LIMIT_NAME.fullmatch(rule.name):
        yield Violation("name", "must match [a-z0-9._-]{1,64}")
    yield from _scope_violations(rule.scope)
    if not 0 <= rule.limit <= MAX_LIMIT:
        yield Violation("limit", f"must be from 0 to {MAX_LIMIT}")
        return
    if rule.burst is not None and rule.algorithm not in BUCKET_ALGORITHMS:
        yield Violation("burst", f"belongs to token_bucket and leaky_bucket, not to {rule.algorithm}")
    elif rule.burst is not None and not 0 <= rule.burst <= MAX_LIMIT:
        yield Violation("burst", f"must be from 0 to {MAX_LIMIT}")
    elif rule.burst == 0 and rule.algorithm == "token_bucket":
        yield Violation("burst", "a token bucket that holds nothing admits nothing: give at least 1")
    wrong_window = list(_window_violations(rule))
    yield from wrong_window
    if not wrong_window and rule.limit:
        yield from _exactness_violations(rule)


def _scope_violations(scope: str) -> Iterator[Violation]:
    parts = dimensions(scope)
    if len(set(parts)) != len(parts):
        yield Violation("scope", "names a dimension twice")
    for part in parts:
        kind, _, name = part.partition(":")
        if kind == "attribute" and ATTRIBUTE_NAME.fullmatch(name):
            continue
        if part not in PLAIN_DIMENSIONS:
            allowed = ", ".join(PLAIN_DIMENSIONS)
            yield Violation("scope", f"{part!r} is not one of {allowed} or attribute:<name>, joined by +")
    if "global" in parts and len(parts) > 1:
        yield Violation("scope", "global stands alone")


def _window_violations(rule: LimitRule) -> Iterator[Violation]:
    if (rule.window_us is None) == (rule.calendar is None):
        yield Violation("window_s", "give exactly one of window_s and window")
    elif rule.calendar is not None and rule.algorithm != "fixed_window":
        yield Violation("window", f"calendar windows need algorithm fixed_window, not {rule.algorithm}")
    elif rule.window_us is not None and not 1_000 <= rule.window_us <= MAX_WINDOW_US:
        yield Violation("window_s", "must be from 0.001 s to 366 days")
    if rule.anchor_us and rule.calendar is None:
        yield Violation("anchor", "belongs to calendar windows (window), not to window_s")


def _exactness_violations(rule: LimitRule) -> Iterator[Violation]:
    window_us = nominal_window_us(rule)
    if rule.algorithm == "sliding_log" and rule.limit > MAX_SLIDING_LOG_LIMIT:
        yield Violation("limit", f"a sliding_log keeps every request: at most {MAX_SLIDING_LOG_LIMIT}")
    if rule.algorithm == "sliding_window" and window_us % sliding_tick_us(rule.limit, window_us):
        yield Violation("window_s", "too fine a fraction of a second for so large a limit")
    if rule.algorithm in BUCKET_ALGORITHMS:
        _, unit_us = reduced_rate(rule.limit, window_us)
        if capacity(rule) * unit_us >= EXACT:
            yield Violation("burst", "burst x window is too large to count exactly: lower it, or use a rounder limit")
