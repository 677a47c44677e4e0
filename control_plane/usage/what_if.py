"""What limits would have done, from hourly usage: an estimate, whose error has a direction that it states.

Clients are judged part by part, in an order that says nothing of them (by the hash of their names). When the time is
over, those judged by then are a random sample, and the answer says so.
"""

import math
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import exc, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from contract.limits import BUCKET_ALGORITHMS, LimitRule
from control_plane.clients.models import ClientRow
from control_plane.errors import FieldError, InvalidError, UnavailableError
from control_plane.limits.rules import to_rule
from control_plane.plans.models import PlanRow
from control_plane.usage import windows
from control_plane.usage.judging import Affected, Judged, Question, Tried
from control_plane.usage.nearness import Skipped
from control_plane.usage.schemas import WhatIfLimit

_TOGETHER = (
    "Estimates of several limits from hourly sums, each as `limits` says. A request that two of them deny is denied "
    "once: `would_deny` takes for each client the limit that denies it most, `would_deny_at_most` adds them up."
)
_OF_A_SAMPLE = (
    "Not all clients could be judged in time: the figures are those of a random sample of {judged:,} of {total:,}, "
    "`of_all` says what follows for all. "
)
TOTAL_S = 15.0
"""For how long clients are judged: what proxies and people wait for."""
_CANCELLED = "57014"
_GROWTH = 8
_Z = 1.96


class Patience(NamedTuple):
    """How long clients are judged: no part is begun after ``total_s``; ``part_s``, which a part is made for, is well
    under ``most_s``, after which the database gives it up. The ``first`` part has so many clients.
    """

    total_s: float
    part_s: float
    most_s: float
    first: int = 100


def patience_for(command_timeout_s: float) -> Patience:
    """What a request can wait for, and the connection's timeout bears."""
    longest_s = min(command_timeout_s, TOTAL_S / 1.5)
    return Patience(TOTAL_S, 0.4 * longest_s, 0.75 * longest_s)


class OfLimit(NamedTuple):
    """What one of the limits would have denied, alone."""

    limit: str
    would_deny: int
    approximation: str


class OfAll(NamedTuple):
    """What a sample says of all clients."""

    would_deny: int
    give_or_take: int


class Outcome(NamedTuple):
    """What the limits would have done since ``since`` to those clients who were judged; ``of_all``: not to all."""

    requests: int
    denied: int
    would_deny: int
    would_deny_at_most: int
    clients: int
    most_affected: list[Affected]
    limits: list[OfLimit]
    since: datetime
    approximation: str
    clients_judged: int
    clients_total: int
    of_all: OfAll | None


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


async def estimate(
    session: AsyncSession, plan: str, tried: Sequence[Tried], days: int, now: datetime, patience: Patience
) -> Outcome:
    """How many requests of the plan's clients in the last ``days`` these limits, together, would have denied.

    Raises ``UnavailableError`` when not one client could be judged in time.
    """
    since = (now - timedelta(days=days)).astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    question = Question(plan, tried, since)
    query = select(ClientRow.client).where(ClientRow.plan == plan)
    by_hash = query.order_by(func.hashtextextended(ClientRow.client, 0), ClientRow.client)
    names = (await session.scalars(by_hash)).all()
    found, judged = await _judge(session, question, names, patience)
    approximation = question.words[0] if len(tried) == 1 else _TOGETHER
    if judged < len(names):
        approximation = _OF_A_SAMPLE.format(judged=judged, total=len(names)) + approximation
    return Outcome(
        found.requests,
        found.denied,
        found.least,
        found.most,
        found.clients,
        found.affected,
        [OfLimit(*one) for one in zip((limit.name for limit in tried), found.each, question.words, strict=True)],
        since,
        approximation,
        judged,
        len(names),
        None if judged == len(names) else _of_all(found, judged, len(names)),
    )


async def _judge(
    session: AsyncSession, question: Question, names: Sequence[str], patience: Patience
) -> tuple[Judged, int]:
    """Those of the clients, from the first, whom the time suffices for; and how many these are."""
    settings = "SELECT set_config('statement_timeout', :most, true), "
    settings += "set_config('plan_cache_mode', 'force_custom_plan', true)"  # of a few clients it is not that of many
    await session.execute(text(settings), {"most": str(int(patience.most_s * 1_000))})
    end = time.monotonic() + patience.total_s
    found, at, size = question.nothing(), 0, patience.first
    while at < len(names):
        began = time.monotonic()
        if began > end and at:
            break
        part = names[at : at + size]
        try:
            async with session.begin_nested():
                found = found.with_those(await question.judge(session, part))
        except exc.DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _CANCELLED:
                raise
            if time.monotonic() > end or len(part) == 1:
                if at:
                    break
                raise UnavailableError("Usage could not be read in time.") from error
            size = max(1, len(part) // 10)
            continue
        at += len(part)
        took_s = time.monotonic() - began
        fitting = len(part) * min(patience.part_s, end - time.monotonic()) / max(took_s, 0.001)
        size = max(1, min(int(fitting), len(part) * _GROWTH))
    return found, at


def _of_all(found: Judged, judged: int, total: int) -> OfAll:
    """The sum of all from a simple random sample without replacement, and 1.96 standard errors of it."""
    mean = found.least / judged
    variance = max(0.0, found.squares - judged * mean * mean) / max(1, judged - 1)
    error = total * math.sqrt(variance / judged * (1 - judged / total))
    return OfAll(round(mean * total), math.ceil(_Z * error))
