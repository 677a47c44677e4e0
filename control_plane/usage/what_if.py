"""What a limit would have done, from hourly usage: an estimate, whose error has a direction that it states."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.errors import FieldError, InvalidError
from control_plane.usage.schemas import WhatIfLimit

_HOUR_S = 3_600
_CALENDAR = {"hour": "hour", "day": "day", "week": "week", "month": "month"}
_CALENDAR_MINUTE_S = 60.0
MOST_AFFECTED = 20

_AT_LEAST = (
    "An estimate from hourly sums. The window is shorter than an hour: demand is taken as spread evenly over each "
    "hour, so bursts within one would have been denied more often than this says."
)
_BY_WINDOWS = (
    "An estimate from hourly sums. Windows are taken one after the other and begin on whole hours, each client's "
    "requests cost their average, and what was denied then counts as wanted once: retries of denied requests are in it."
)


class Affected(NamedTuple):
    """A client that would have been denied."""

    client: str
    requests: int
    would_deny: int


class Outcome(NamedTuple):
    """What the limit would have done since ``since``."""

    requests: int
    denied: int
    would_deny: int
    clients: int
    most_affected: list[Affected]
    since: datetime
    approximation: str


async def estimate(session: AsyncSession, plan: str, limit: WhatIfLimit, days: int, now: datetime) -> Outcome:
    """How many requests of the plan's clients in the last ``days`` this limit, by client, would have denied."""
    if (limit.window_s is None) == (limit.window is None):
        raise InvalidError([FieldError("limit.window_s", "give exactly one of window_s and window")])
    since = (now - timedelta(days=days)).astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    window_s = _CALENDAR_MINUTE_S if limit.window == "minute" else limit.window_s
    if window_s is None:
        window, capacity, words = (
            f"date_trunc('{_CALENDAR[limit.window or 'day']}', hour, 'UTC')",
            float(limit.limit),
            _BY_WINDOWS,
        )
    elif window_s < _HOUR_S:
        window, capacity, words = "hour", limit.limit * _HOUR_S / window_s, _AT_LEAST
    else:
        hours = round(window_s / _HOUR_S)
        window, capacity, words = (
            f"floor(extract(epoch FROM hour) / {_HOUR_S * hours})",
            float(limit.limit),
            _BY_WINDOWS,
        )
    # whole requests: what is wanted beyond the limit, in requests of this client's average cost
    statement = text(f"""
        WITH wanted AS (
            SELECT client, {window} AS w, sum(allowed + denied) AS requests, sum(denied) AS denied,
                   sum(cost + denied_cost) AS units
            FROM usage_hourly
            WHERE plan = :plan AND limit_name = '' AND hour >= :since AND client <> ''
              AND (CAST(:any_endpoint AS boolean) OR endpoint = ANY(CAST(:endpoints AS text[])))
            GROUP BY client, w
        ), judged AS (
            SELECT client, sum(requests) AS requests, sum(denied) AS denied,
                   sum(CASE WHEN units > :capacity THEN ceil((units - :capacity) * requests / units) ELSE 0 END)
                       AS would_deny
            FROM wanted GROUP BY client
        )
        SELECT client, requests, denied, would_deny,
               sum(requests) OVER (), sum(denied) OVER (), sum(would_deny) OVER (),
               count(*) FILTER (WHERE would_deny > 0) OVER ()
        FROM judged ORDER BY would_deny DESC, client LIMIT {MOST_AFFECTED}
    """)  # noqa: S608  the window is one of a few expressions of this file
    values = {
        "plan": plan, "since": since, "capacity": capacity,
        "any_endpoint": not limit.endpoints, "endpoints": list(limit.endpoints),
    }  # fmt: skip
    rows = (await session.execute(statement, values)).all()
    if not rows:
        return Outcome(0, 0, 0, 0, [], since, words)
    requests, denied, would_deny, clients = (int(figure) for figure in rows[0][4:8])
    most = [Affected(row[0], int(row[1]), int(row[3])) for row in rows if row[3] > 0]
    return Outcome(requests, denied, would_deny, clients, most, since, words)
