"""What limits would have done, from hourly usage: an estimate, whose error has a direction that it states."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from contract.limits import BUCKET_ALGORITHMS, LimitRule
from control_plane.errors import FieldError, InvalidError
from control_plane.limits.rules import to_rule
from control_plane.plans.models import PlanRow
from control_plane.usage import windows
from control_plane.usage.nearness import Skipped
from control_plane.usage.schemas import CalendarWindow, WhatIfLimit

_HOUR_S = 3_600
MOST_AFFECTED = 20

_AT_LEAST = (
    "An estimate from hourly sums. The window is shorter than an hour: demand is taken as spread evenly over each "
    "hour, so bursts within one would have been denied more often than this says."
)
_BY_WINDOWS = (
    "An estimate from hourly sums. Windows are taken one after the other and begin on whole hours, each client's "
    "requests cost their average, and what was denied then counts as wanted once: retries of denied requests are in it."
)
_TOGETHER = (
    "Estimates of several limits from hourly sums, each as `limits` says. A request that two of them deny is denied "
    "once: `would_deny` takes for each client the limit that denies it most, `would_deny_at_most` adds them up."
)


class Tried(NamedTuple):
    """A limit by client as it would be: exactly one of ``window_s`` and ``window``; no ``endpoints``: all of them."""

    name: str
    limit: int
    burst: int
    window_s: float | None
    window: CalendarWindow | None
    endpoints: tuple[str, ...]


class Affected(NamedTuple):
    """A client that would have been denied."""

    client: str
    requests: int
    would_deny: int


class OfLimit(NamedTuple):
    """What one of the limits would have denied, alone."""

    limit: str
    would_deny: int
    approximation: str


class Outcome(NamedTuple):
    """What the limits would have done since ``since``."""

    requests: int
    denied: int
    would_deny: int
    would_deny_at_most: int
    clients: int
    most_affected: list[Affected]
    limits: list[OfLimit]
    since: datetime
    approximation: str


def tried_from(limits: Mapping[str, WhatIfLimit]) -> list[Tried]:
    """The limits of a question, by the fields that hold them. Raises ``InvalidError``."""
    wrong = [name for name, limit in limits.items() if (limit.window_s is None) == (limit.window is None)]
    if wrong:
        raise InvalidError(FieldError(f"{name}.window_s", "give exactly one of window_s and window") for name in wrong)
    return [
        Tried(name, limit.limit, 0, limit.window_s, limit.window, tuple(limit.endpoints))
        for name, limit in limits.items()
    ]


def tried_of_plan(plan: PlanRow) -> tuple[list[Tried], list[Skipped]]:
    """The limits of a plan that usage can tell of, and the others with the reason."""
    tried, skipped = [], []
    for row in plan.limits:
        rule = to_rule(row, ())
        reason = "it is in shadow, and stops nobody" if rule.shadow else windows.unknowable(rule)
        if reason is None:
            tried.append(_tried(rule))
        else:
            skipped.append(Skipped(rule.name, reason))
    return tried, skipped


def _tried(rule: LimitRule) -> Tried:
    window_s = None if rule.window_us is None else rule.window_us / 1_000_000
    burst = (rule.burst or rule.limit) if rule.algorithm in BUCKET_ALGORITHMS else 0
    return Tried(rule.name, rule.limit, burst, window_s, rule.calendar, tuple(rule.match.endpoints))


async def estimate(session: AsyncSession, plan: str, tried: Sequence[Tried], days: int, now: datetime) -> Outcome:
    """How many requests of the plan's clients in the last ``days`` these limits, together, would have denied."""
    since = (now - timedelta(days=days)).astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    terms = [_terms(limit) for limit in tried]
    values: dict[str, object] = {"plan": plan, "since": since, "endpoints": _endpoints(tried)}
    for number, (limit, term) in enumerate(zip(tried, terms, strict=True)):
        values |= {f"capacity{number}": term.capacity, f"endpoints{number}": list(limit.endpoints) or None}
    rows = (await session.execute(text(_statement(terms)), values)).all()
    approximation = terms[0].words if len(terms) == 1 else _TOGETHER
    if not rows:
        of_limits = [OfLimit(limit.name, 0, term.words) for limit, term in zip(tried, terms, strict=True)]
        return Outcome(0, 0, 0, 0, 0, [], of_limits, since, approximation)
    requests, denied, least, most, clients, *each = (int(figure) for figure in rows[0][3:])
    affected = [Affected(row[0], int(row[1]), int(row[2])) for row in rows if row[2] > 0]
    of_limits = [
        OfLimit(limit.name, would_deny, term.words) for limit, term, would_deny in zip(tried, terms, each, strict=True)
    ]
    return Outcome(requests, denied, least, most, clients, affected, of_limits, since, approximation)


class _Terms(NamedTuple):
    """How the database sees a limit: an expression that names a row's window, and the units that one admits."""

    window: str
    capacity: float
    words: str


def _terms(tried: Tried) -> _Terms:
    window_s = 60.0 if tried.window == "minute" else tried.window_s
    if window_s is None:
        return _Terms(f"date_trunc('{tried.window}', hour, 'UTC')", float(tried.limit), _BY_WINDOWS)
    if window_s < _HOUR_S:
        return _Terms("hour", tried.limit * _HOUR_S / window_s + tried.burst, _AT_LEAST)
    window = f"floor(extract(epoch FROM hour) / {_HOUR_S * round(window_s / _HOUR_S)})"
    return _Terms(window, float(tried.limit + tried.burst), _BY_WINDOWS)


def _endpoints(tried: Sequence[Tried]) -> list[str] | None:
    """Those that any of the limits looks at; ``None``: all."""
    if not all(limit.endpoints for limit in tried):
        return None
    return sorted({endpoint for limit in tried for endpoint in limit.endpoints})


def _statement(terms: Sequence[_Terms]) -> str:
    # whole requests: what is wanted beyond the limit, in requests of this client's average cost
    judged = " UNION ALL ".join(
        f"""SELECT client, {number} AS n, sum(CASE WHEN units > :capacity{number}
                THEN ceil((units - :capacity{number}) * requests / units) ELSE 0 END) AS would_deny
            FROM (SELECT client, {term.window} AS w, sum(allowed + denied) AS requests, sum(cost + denied_cost) AS units
                  FROM usage_hourly
                  WHERE plan = :plan AND limit_name = '' AND hour >= :since AND client <> ''
                    AND (CAST(:endpoints{number} AS text[]) IS NULL
                         OR endpoint = ANY(CAST(:endpoints{number} AS text[])))
                  GROUP BY client, w) AS wanted
            GROUP BY client"""  # noqa: S608  the window is one of a few expressions of this file
        for number, term in enumerate(terms)
    )
    each = ", ".join(f"sum(would_deny) FILTER (WHERE n = {number}) AS of{number}" for number in range(len(terms)))
    sums = ", ".join(f"coalesce(sum(of{number}) OVER (), 0)" for number in range(len(terms)))
    return f"""
        WITH asked AS (
            SELECT client, sum(allowed + denied) AS requests, sum(denied) AS denied
            FROM usage_hourly
            WHERE plan = :plan AND limit_name = '' AND hour >= :since AND client <> ''
              AND (CAST(:endpoints AS text[]) IS NULL OR endpoint = ANY(CAST(:endpoints AS text[])))
            GROUP BY client
        ), judged AS ({judged}), together AS (
            SELECT client, max(would_deny) AS least, sum(would_deny) AS most, {each} FROM judged GROUP BY client
        )
        SELECT client, requests, least, sum(requests) OVER (), sum(denied) OVER (), sum(least) OVER (),
               sum(LEAST(most, requests)) OVER (), count(*) FILTER (WHERE least > 0) OVER (), {sums}
        FROM asked JOIN together USING (client) ORDER BY least DESC, client LIMIT {MOST_AFFECTED}
    """  # noqa: S608  numbers and names of this file
