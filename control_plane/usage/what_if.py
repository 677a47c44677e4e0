"""Estimates what limits would have denied, from hourly usage; each estimate states the direction of its error."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.clients.repository import count_on
from control_plane.errors import FieldError, InvalidError
from control_plane.limits.models import PlanRow
from control_plane.limits.service import to_rule
from control_plane.orm import bound_statements
from control_plane.usage import windows
from control_plane.usage.schemas import WhatIfLimit
from control_plane.usage.what_if_repository import Affected, CandidateLimit, WhatIfQuery
from control_plane.usage.windows import Skipped
from tidegate.contract.calendar import calendar_anchor_us
from tidegate.contract.limits import BUCKET_ALGORITHMS, MONDAY_US, LimitRule

_TOGETHER = (
    "Estimates of several limits from hourly sums, each as `limits` says. A request that two of them deny is denied "
    "once: `would_deny` takes for each client the limit that denies it most, `would_deny_at_most` adds them up."
)
MOST_S = 15.0
"""How long the database may evaluate, bounded by the patience of proxies and people."""
_CANCELLED = "57014"


def most_s(command_timeout_s: float) -> float:
    """The same where commands may take less: under the connection's timeout, so that the database raises it first."""
    return min(MOST_S, 0.75 * command_timeout_s)


class OfLimit(NamedTuple):
    """What one of the limits would have denied by itself."""

    limit: str
    would_deny: int
    approximation: str


class Outcome(NamedTuple):
    """What the limits would have done since ``since`` to the plan's clients, ``clients_total`` in number."""

    requests: int
    denied: int
    would_deny: int
    would_deny_at_most: int
    clients: int
    clients_total: int
    most_affected: list[Affected]
    limits: list[OfLimit]
    since: datetime
    approximation: str


def tried_from(limits: Mapping[str, WhatIfLimit]) -> list[CandidateLimit]:
    """The candidate limits of a query, by field. Raises ``InvalidError``."""
    wrong = [name for name, limit in limits.items() if (limit.window_s is None) == (limit.window is None)]
    if wrong:
        raise InvalidError(FieldError(f"{name}.window_s", "give exactly one of window_s and window") for name in wrong)
    return [
        CandidateLimit(name, limit.limit, 0, limit.window_s, limit.window, tuple(limit.endpoints))
        for name, limit in limits.items()
    ]


def tried_of_plan(plan: PlanRow) -> tuple[list[CandidateLimit], list[Skipped]]:
    """The limits of a plan that usage can evaluate, and the others with the reason."""
    tried, skipped = [], []
    for row in plan.limits:
        rule = to_rule(row, ())
        reason = "it is in shadow, and stops nobody" if rule.shadow else windows.unknowable(rule)
        if reason is None:
            tried.append(_tried(rule))
        else:
            skipped.append(Skipped(rule.name, reason))
    return tried, skipped


def _tried(rule: LimitRule) -> CandidateLimit:
    window_s = None if rule.window_us is None else rule.window_us / 1_000_000
    burst = (rule.burst or rule.limit) if rule.algorithm in BUCKET_ALGORITHMS else 0
    anchor_us = 0 if rule.calendar is None else calendar_anchor_us(rule) - (MONDAY_US if rule.calendar == "week" else 0)
    return CandidateLimit(rule.name, rule.limit, burst, window_s, rule.calendar, tuple(rule.match.endpoints), anchor_us)


async def estimate(
    session: AsyncSession, plan: str, tried: Sequence[CandidateLimit], days: int, now: datetime, most_s: float
) -> Outcome:
    """How many requests of the plan's clients in the last ``days`` these limits, together, would have denied.

    Raises ``InvalidError`` when the database needs longer than ``most_s``.
    """
    since = (now - timedelta(days=days)).astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    question = WhatIfQuery(plan, tried, since)
    total = await count_on(session, plan)
    await bound_statements(session, most_s)
    try:
        found = await question.evaluate(session)
    except exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _CANCELLED:
            raise
        too_much = f"{days} days of {total:,} clients take longer to evaluate than {most_s:g} s: ask for fewer days"
        raise InvalidError([FieldError("days", too_much)]) from error
    return Outcome(
        found.requests,
        found.denied,
        found.least,
        found.most,
        found.clients,
        total,
        found.affected,
        [OfLimit(*one) for one in zip((limit.name for limit in tried), found.each, question.words, strict=True)],
        since,
        question.words[0] if len(tried) == 1 else _TOGETHER,
    )
