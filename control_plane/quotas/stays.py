"""Clients that leave a plan, and return: their counts are kept, so the shares that those were spent by are kept too.

Else who returns within a window to other shares than it left would have a part of both in it.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from contract.calendar import SKEW_US, cycle_us
from contract.config import Client, Plan
from control_plane.clients.models import ClientRow
from control_plane.limits.rules import SPLIT_MODES
from control_plane.quotas.models import CLIENTS, THE_LIMIT, ClientStay, QuotaMove
from control_plane.quotas.moving import Steps
from control_plane.rollout.documents import DocumentKey
from control_plane.rollout.writer import ConfigWrite

STAYS_A_STATEMENT = 5_000
_FAR_US = 4_000_000_000_000_000


class Stay(msgspec.Struct, frozen=True):
    """On which plan a client is or was, and how limits of it are or were divided for it alone."""

    plan: str
    shares: dict[str, Steps] = {}


class _Ended(NamedTuple):
    client: str
    stay: Stay


class Stays:
    """The stays of a write's clients: those that it ends are kept, and those that it goes on with are found."""

    def __init__(self, now_us: int) -> None:
        self._now_us = now_us
        self._found: dict[tuple[str, str], Stay] = {}
        self._divided: set[str] = set()

    async def see(
        self, write: ConfigWrite, before: Mapping[DocumentKey, str], after: Mapping[DocumentKey, str | None]
    ) -> None:
        """Take in documents of a write, before any of them is published."""
        ended: list[_Ended] = []
        come: list[str] = []
        for key, wanted in after.items():
            if key.kind != "client":
                continue
            had = msgspec.json.decode(before[key], type=Stay) if key in before else None
            has = None if wanted is None else msgspec.json.decode(wanted, type=Stay)
            if had is not None and has is not None and had.plan == has.plan:
                continue
            if had is not None:
                ended.append(_Ended(key.id, had))
            if has is not None:
                come.append(key.id)
        await self._keep(write, ended)
        await self._find(write.session, come)

    def had_shares(self, client: str) -> bool:
        """Whether any plan that may still weigh was divided for this client alone."""
        return client in self._divided

    def before(self, client: Client) -> Stay | None:
        """What a client had of the plan that it comes to, if that may still weigh."""
        return self._found.get((client.client, client.plan))

    async def _keep(self, write: ConfigWrite, ended: Sequence[_Ended]) -> None:
        until = {plan: await self._weighs_until(write, plan) for plan in {one.stay.plan for one in ended}}
        rows = [
            {
                "client": one.client, "plan": one.stay.plan, "shares": msgspec.to_builtins(one.stay.shares),
                "until": until[one.stay.plan],
            }
            for one in ended
            if until[one.stay.plan] is not None
        ]  # fmt: skip
        for start in range(0, len(rows), STAYS_A_STATEMENT):
            keep = insert(ClientStay).values(rows[start : start + STAYS_A_STATEMENT])
            kept = {"shares": keep.excluded.shares, "until": keep.excluded.until}
            await write.session.execute(keep.on_conflict_do_update(index_elements=["client", "plan"], set_=kept))

    async def _weighs_until(self, write: ConfigWrite, plan: str) -> datetime | None:
        """When two windows of every divided limit of a plan are over; nothing where none is divided."""
        document = await write.plan(plan)
        limits = () if document is None else msgspec.json.decode(document, type=Plan).limits
        cycles_us = [cycle_us(rule) for rule in limits if rule.mode in SPLIT_MODES]
        if not cycles_us:
            return None
        until_us = self._now_us + 2 * (max(cycles_us) + SKEW_US)
        return datetime.fromtimestamp(min(until_us, _FAR_US) / 1e6, UTC)

    async def _find(self, session: AsyncSession, clients: Sequence[str]) -> None:
        if not clients or not await session.scalar(select(exists().where(ClientStay.client.is_not(None)))):
            return
        now = datetime.fromtimestamp(self._now_us / 1e6, UTC)
        for start in range(0, len(clients), STAYS_A_STATEMENT):
            some = clients[start : start + STAYS_A_STATEMENT]
            for row in await session.scalars(
                select(ClientStay).where(ClientStay.client.in_(some), ClientStay.until > now)
            ):
                shares = msgspec.convert(row.shares, dict[str, Steps])
                self._found[row.client, row.plan] = Stay(row.plan, shares)
                if shares:
                    self._divided.add(row.client)


def _is_or_was_there() -> ColumnElement[bool]:
    """Whether a move is of a client that is on its plan, or may return to it with what it spent."""
    there = exists().where(ClientRow.client == QuotaMove.whose, ClientRow.plan == QuotaMove.plan)
    was = exists().where(ClientStay.client == QuotaMove.whose, ClientStay.plan == QuotaMove.plan)
    return or_(there, was)


async def forget_stays(session: AsyncSession) -> int:
    """Drop stays that weigh no more, and the moves of clients that neither are nor were on the plan."""
    over = delete(ClientStay).where(ClientStay.until < func.now()).returning(ClientStay.client)
    dropped = len((await session.scalars(over)).all())
    of_nobody = and_(QuotaMove.whose.not_in([THE_LIMIT, CLIENTS]), ~_is_or_was_there())
    gone = delete(QuotaMove).where(of_nobody).returning(QuotaMove.rule_id)
    return dropped + len((await session.scalars(gone)).all())
