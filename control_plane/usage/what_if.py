"""Estimates what limits would have denied, from hourly usage; each estimate states the direction of its error."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import exc
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.clients.repository import count_on
from control_plane.errors import FieldError, InvalidError
from control_plane.limits.models import PlanRow
from control_plane.orm import bound_statements
from control_plane.usage import windows
from control_plane.usage.repository import complete_until
from control_plane.usage.schemas import SkippedLimit, WhatIfLimit, WhatIfOfLimit, WhatIfView
from control_plane.usage.what_if_repository import CandidateLimit, WhatIfQuery
from tidegate.contract.calendar import calendar_anchor_us
from tidegate.contract.limits import BUCKET_ALGORITHMS, MONDAY_US, LimitRule, capacity

_TOGETHER = (
    "Estimates of several limits from hourly sums, each as `limits` says. A request that two of them deny is denied "
    "once: `would_deny` takes for each client the limit that denies it most, `would_deny_at_most` adds them up."
)
MOST_S = 15.0
"""How long the database may evaluate, bounded by the patience of proxies and people."""
_CANCELLED = "57014"


def evaluation_bound_s(command_timeout_s: float) -> float:
    """The same where commands may take less: under the connection's timeout, so that the database raises it first."""
    return min(MOST_S, 0.75 * command_timeout_s)


def candidates_from(limits: Mapping[str, WhatIfLimit]) -> list[CandidateLimit]:
    """The candidate limits of a query, by field. Raises ``InvalidError``."""
    wrong = [name for name, limit in limits.items() if (limit.window_s is None) == (limit.window is None)]
    if wrong:
        raise InvalidError(FieldError(f"{name}.window_s", "give exactly one of window_s and window") for name in wrong)
    return [
        CandidateLimit(name, limit.limit, 0, limit.window_s, limit.window, tuple(limit.endpoints))
        for name, limit in limits.items()
    ]


def candidates_of_plan(plan: PlanRow) -> tuple[list[CandidateLimit], list[SkippedLimit]]:
    """The limits of a plan that usage can evaluate, and the others with the reason."""
    rules, skipped = windows.fit_limits(plan, _unknowable)
    return [_candidate(rule) for rule in rules], skipped


def _unknowable(rule: LimitRule) -> str | None:
    return "it is in shadow, and stops nobody" if rule.shadow else windows.unknowable(rule)


def _candidate(rule: LimitRule) -> CandidateLimit:
    window_s = None if rule.window_us is None else rule.window_us / 1_000_000
    burst = capacity(rule) if rule.limit and rule.algorithm in BUCKET_ALGORITHMS else 0  # of 0 a node denies all
    anchor_us = 0 if rule.calendar is None else calendar_anchor_us(rule) - (MONDAY_US if rule.calendar == "week" else 0)
    return CandidateLimit(rule.name, rule.limit, burst, window_s, rule.calendar, tuple(rule.match.endpoints), anchor_us)


async def estimate(
    session: AsyncSession,
    plan: str,
    candidates: Sequence[CandidateLimit],
    days: int,
    now: datetime,
    most_s: float,
    skipped: Sequence[SkippedLimit] = (),
) -> WhatIfView:
    """How many requests of the plan's clients in the last ``days`` these limits, together, would have denied.

    Raises ``InvalidError`` when the database needs longer than ``most_s``.
    """
    since = windows.whole_hour(now - timedelta(days=days))
    question = WhatIfQuery(plan, candidates, since)
    total = await count_on(session, plan)
    await bound_statements(session, most_s)
    try:
        found = await question.evaluate(session)
    except exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _CANCELLED:
            raise
        too_much = f"{days} days of {total:,} clients take longer to evaluate than {most_s:g} s: ask for fewer days"
        raise InvalidError([FieldError("days", too_much)]) from error
    return WhatIfView(
        clients_total=total,
        requests=found.requests,
        denied=found.denied,
        would_deny=found.least,
        would_deny_at_most=found.most,
        clients=found.clients,
        most_affected=found.affected,
        limits=[
            WhatIfOfLimit(limit=limit.name, would_deny=would_deny, approximation=words)
            for limit, would_deny, words in zip(candidates, found.each, question.words, strict=True)
        ],
        skipped=list(skipped),
        since=since,
        approximation=question.words[0] if len(candidates) == 1 else _TOGETHER,
        complete_until=await complete_until(session),
    )
