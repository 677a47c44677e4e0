"""Evaluates candidate limits on the past hours of a plan's clients, by one SQL statement."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.usage.schemas import CalendarWindow, WhatIfClient

_HOUR_S = 3_600
MOST_AFFECTED = 20

_AT_LEAST = (
    "An estimate from hourly sums. The window is shorter than an hour: demand is taken as spread evenly over each "
    "hour, so bursts within one would have been denied more often than this says."
)
_BY_BUCKET = (
    "An estimate from hourly sums. A bucket that is full at first is refilled hour by hour: demand is taken as spread "
    "evenly over each hour, so bursts within one would have been denied more often than this says."
)
_BY_WINDOWS = (
    "An estimate from hourly sums. Windows are taken one after the other and begin on whole hours, each client's "
    "requests cost their average, and what was denied then counts as wanted once: retries of denied requests are in it."
)


class CandidateLimit(NamedTuple):
    """A limit by client as it would be: exactly one of ``window_s`` and ``window``; no ``endpoints``: all of them.

    ``burst`` is what a bucket holds; 0: it is none.
    """

    name: str
    limit: int
    burst: int
    window_s: float | None
    window: CalendarWindow | None
    endpoints: tuple[str, ...]
    shift_us: int = 0
    """How much later than the calendar's own a calendar window begins."""


class Evaluation(NamedTuple):
    """The result for all clients; ``least`` and ``most`` are ``would_deny`` and ``would_deny_at_most``."""

    requests: int
    denied: int
    least: int
    most: int
    clients: int
    each: tuple[int, ...]
    affected: list[WhatIfClient]


class WhatIfQuery:
    """Limits for a plan's clients since ``since``."""

    def __init__(self, plan: str, tried: Sequence[CandidateLimit], since: datetime) -> None:
        parts = [_part(number, limit) for number, limit in enumerate(tried)]
        self.words = [part.words for part in parts]
        self._values: dict[str, object] = {"plan": plan, "since": since, "endpoints": _endpoints(tried)}
        for number, (limit, part) in enumerate(zip(tried, parts, strict=True)):
            self._values |= part.values | {f"endpoints{number}": list(limit.endpoints) or None}
        self._statement = text(_statement([part.select for part in parts]))

    async def evaluate(self, session: AsyncSession) -> Evaluation:
        """Evaluate the limits on the clients that are on the plan now."""
        rows = (await session.execute(self._statement, self._values)).all()
        if not rows:
            return Evaluation(0, 0, 0, 0, 0, (0,) * len(self.words), [])
        first = rows[0]
        return Evaluation(
            requests=int(first.all_requests),
            denied=int(first.all_denied),
            least=int(first.all_least),
            most=int(first.all_most),
            clients=first.clients,
            each=tuple(int(of_limit) for of_limit in first.each),
            affected=[
                WhatIfClient(client=row.client, requests=int(row.requests), would_deny=int(row.least))
                for row in rows
                if row.least > 0
            ],
        )


class _Part(NamedTuple):
    """One limit in SQL: how many requests of each client it would have denied, and the parameters of that."""

    select: str
    values: dict[str, object]
    words: str


def _part(number: int, tried: CandidateLimit) -> _Part:
    window_s = 60.0 if tried.window == "minute" else tried.window_s
    if window_s is None:
        hour = f"hour - interval '{tried.shift_us} microseconds'"
        return _by_windows(number, f"date_trunc('{tried.window}', {hour}, 'UTC')", tried.limit, _BY_WINDOWS)
    if tried.burst:
        return _by_bucket(number, tried.limit * _HOUR_S / window_s, tried.burst)
    if window_s < _HOUR_S:
        return _by_windows(number, "hour", tried.limit * _HOUR_S / window_s, _AT_LEAST)
    whole_s = _HOUR_S * round(window_s / _HOUR_S)
    window = f"floor(extract(epoch FROM hour) / {whole_s})"
    return _by_windows(number, window, tried.limit * (whole_s / window_s), _BY_WINDOWS)


def _by_windows(number: int, window: str, capacity: float, words: str) -> _Part:
    """Each window, an expression for a row's, admits ``capacity`` units.

    Denied are whole requests: what is wanted beyond it, in requests of this client's average cost.
    """
    select = f"""
        SELECT client, {number} AS n, sum(CASE WHEN units > :capacity{number}
            THEN ceil((units - :capacity{number}) * requests / units) ELSE 0 END) AS would_deny
        FROM (SELECT client, {window} AS w, sum(requests{number}) AS requests, sum(units{number}) AS units
              FROM hours GROUP BY client, w) AS wanted
        GROUP BY client
    """  # noqa: S608  the window is one of a few expressions of this file
    return _Part(select, {f"capacity{number}": float(capacity)}, words)


def _by_bucket(number: int, refill: float, burst: int) -> _Part:
    """A bucket, full at first, gets ``refill`` units in each hour; it goes on from hour to hour with what is left.

    In SQL ``i`` counts the hours in which the client asked, ``has`` is what the bucket can give in one, ``tokens`` what
    is left after it, and ``lacked`` what was wanted beyond.
    """
    asked = f"ORDER BY hour) FILTER (WHERE units{number} > 0)"
    select = f"""
        SELECT client, {number} AS n, (
            WITH RECURSIVE bucket (i, tokens, lacked) AS (
                SELECT 0, CAST(:burst{number} AS float8), CAST(0 AS float8)
                UNION ALL
                SELECT i + 1, LEAST(:burst{number}, GREATEST(0, has - units[i + 1])), GREATEST(0, units[i + 1] - has)
                FROM (SELECT i, LEAST(:burst{number}, tokens + :refill{number} * coalesce(at[i + 1] - at[i] - 1, 0))
                                + :refill{number} AS has
                      FROM bucket WHERE i < cardinality(units)) AS refilled
            ) SELECT coalesce(sum(ceil(lacked * requests[i] / units[i])), 0) FROM bucket WHERE lacked > 0
        ) AS would_deny
        FROM (SELECT client, array_agg(CAST(units{number} AS float8) {asked} AS units,
                     array_agg(CAST(requests{number} AS float8) {asked} AS requests,
                     array_agg(CAST(extract(epoch FROM hour) / {_HOUR_S} AS int) {asked} AS at
              FROM hours GROUP BY client) AS wanted
    """  # noqa: S608  numbers of this file
    return _Part(select, {f"refill{number}": float(refill), f"burst{number}": float(burst)}, _BY_BUCKET)


def _endpoints(tried: Sequence[CandidateLimit]) -> list[str] | None:
    """Those that any of the limits looks at; ``None``: all."""
    if not all(limit.endpoints for limit in tried):
        return None
    return sorted({endpoint for limit in tried for endpoint in limit.endpoints})


def _statement(selects: Sequence[str]) -> str:
    numbers = range(len(selects))
    of_limits = ", ".join(
        f"sum(allowed + denied) FILTER (WHERE {_is_of(f'endpoints{number}')}) AS requests{number}, "
        f"sum(cost + denied_cost) FILTER (WHERE {_is_of(f'endpoints{number}')}) AS units{number}"
        for number in numbers
    )
    evaluated = " UNION ALL ".join(selects)
    each = ", ".join(f"sum(would_deny) FILTER (WHERE n = {number}) AS of{number}" for number in numbers)
    sums = ", ".join(f"coalesce(sum(of{number}) OVER (), 0)" for number in numbers)
    return f"""
        WITH hours AS MATERIALIZED (
            SELECT client, hour, sum(allowed + denied) AS requests, sum(denied) AS denied, {of_limits}
            FROM usage_hourly
            WHERE client IN (SELECT client FROM clients WHERE clients.plan = :plan)
              AND plan = :plan AND limit_name = '' AND hour >= :since
              AND {_is_of("endpoints")}
            GROUP BY client, hour
        ), asked AS (
            SELECT client, sum(requests) AS requests, sum(denied) AS denied FROM hours GROUP BY client
        ), evaluated AS ({evaluated}), together AS (
            SELECT client, max(would_deny) AS least, sum(would_deny) AS most, {each} FROM evaluated GROUP BY client
        )
        SELECT client, requests, least, sum(requests) OVER () AS all_requests, sum(denied) OVER () AS all_denied,
               sum(least) OVER () AS all_least, sum(LEAST(most, requests)) OVER () AS all_most,
               count(*) FILTER (WHERE least > 0) OVER () AS clients, ARRAY[{sums}] AS each
        FROM asked JOIN together USING (client) ORDER BY least DESC, client LIMIT {MOST_AFFECTED}
    """  # noqa: S608  numbers and names of this file


def _is_of(endpoints: str) -> str:
    return f"(CAST(:{endpoints} AS text[]) IS NULL OR endpoint = ANY(CAST(:{endpoints} AS text[])))"
