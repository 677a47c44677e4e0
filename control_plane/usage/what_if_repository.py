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
_BY_WINDOWS = (
    "An estimate from hourly sums. Windows are taken one after the other and begin on whole hours, each client's "
    "requests cost their average, and what was denied then counts as wanted once: retries of denied requests are in it."
)


class CandidateLimit(NamedTuple):
    """A limit by client as it would be: exactly one of ``window_s`` and ``window``; no ``endpoints``: all of them."""

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
        expressions = [_expressions_of(limit) for limit in tried]
        self.words = [expression.words for expression in expressions]
        self._values: dict[str, object] = {"plan": plan, "since": since, "endpoints": _endpoints(tried)}
        for number, (limit, expression) in enumerate(zip(tried, expressions, strict=True)):
            self._values |= {
                f"capacity{number}": expression.capacity,
                f"endpoints{number}": list(limit.endpoints) or None,
            }
        self._statement = text(_statement(expressions))

    async def evaluate(self, session: AsyncSession) -> Evaluation:
        """Evaluate the limits on the clients that are on the plan now."""
        rows = (await session.execute(self._statement, self._values)).all()
        if not rows:
            return Evaluation(0, 0, 0, 0, 0, (0,) * len(self.words), [])
        requests, denied, least, most, clients, *each = rows[0][3:]
        return Evaluation(
            requests=int(requests),
            denied=int(denied),
            least=int(least),
            most=int(most),
            clients=clients,
            each=tuple(int(of_limit) for of_limit in each),
            affected=[
                WhatIfClient(client=row[0], requests=int(row[1]), would_deny=int(row[2])) for row in rows if row[2] > 0
            ],
        )


class _Expressions(NamedTuple):
    """A limit in SQL: an expression for a row's window, and the units that a window admits."""

    window: str
    capacity: float
    words: str


def _expressions_of(tried: CandidateLimit) -> _Expressions:
    window_s = 60.0 if tried.window == "minute" else tried.window_s
    if window_s is None:
        hour = f"hour - interval '{tried.shift_us} microseconds'"
        return _Expressions(f"date_trunc('{tried.window}', {hour}, 'UTC')", float(tried.limit), _BY_WINDOWS)
    if window_s < _HOUR_S:
        return _Expressions("hour", tried.limit * _HOUR_S / window_s + tried.burst, _AT_LEAST)
    whole_s = _HOUR_S * round(window_s / _HOUR_S)
    window = f"floor(extract(epoch FROM hour) / {whole_s})"
    return _Expressions(window, tried.limit * (whole_s / window_s) + tried.burst, _BY_WINDOWS)


def _endpoints(tried: Sequence[CandidateLimit]) -> list[str] | None:
    """Those that any of the limits looks at; ``None``: all."""
    if not all(limit.endpoints for limit in tried):
        return None
    return sorted({endpoint for limit in tried for endpoint in limit.endpoints})


def _statement(expressions: Sequence[_Expressions]) -> str:
    numbers = range(len(expressions))
    of_limits = ", ".join(
        f"sum(allowed + denied) FILTER (WHERE {_is_of(f'endpoints{number}')}) AS requests{number}, "
        f"sum(cost + denied_cost) FILTER (WHERE {_is_of(f'endpoints{number}')}) AS units{number}"
        for number in numbers
    )
    # whole requests: what is wanted beyond the limit, in requests of this client's average cost
    evaluated = " UNION ALL ".join(
        f"""SELECT client, {number} AS n, sum(CASE WHEN units > :capacity{number}
                THEN ceil((units - :capacity{number}) * requests / units) ELSE 0 END) AS would_deny
            FROM (SELECT client, {expression.window} AS w,
                         sum(requests{number}) AS requests, sum(units{number}) AS units
                  FROM hours GROUP BY client, w) AS wanted
            GROUP BY client"""  # noqa: S608  the window is one of a few expressions of this file
        for number, expression in enumerate(expressions)
    )
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
        SELECT client, requests, least, sum(requests) OVER (), sum(denied) OVER (), sum(least) OVER (),
               sum(LEAST(most, requests)) OVER (), count(*) FILTER (WHERE least > 0) OVER (), {sums}
        FROM asked JOIN together USING (client) ORDER BY least DESC, client LIMIT {MOST_AFFECTED}
    """  # noqa: S608  numbers and names of this file


def _is_of(endpoints: str) -> str:
    return f"(CAST(:{endpoints} AS text[]) IS NULL OR endpoint = ANY(CAST(:{endpoints} AS text[])))"
