"""Requests a second by region, from what nodes reported lately."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import BigInteger, cast, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.nodes.models import NodeReportRow

SHOWN = timedelta(minutes=15)
STEP_S = 30
"""Nodes report every 10 s, replicas write that down every few seconds: a step holds whole reports."""


class Rate(NamedTuple):
    """Requests a second."""

    decided: float
    denied: float
    without_store: float

    @property
    def allowed(self) -> float:
        """Those that were not denied."""
        return max(0.0, self.decided - self.denied)


class Rates(NamedTuple):
    """``points``: all regions together, by the begin of a step; ``regions``: each one's newest whole step."""

    points: Sequence[tuple[datetime, Rate]]
    regions: Mapping[str, Rate]


async def read(session: AsyncSession, now: datetime) -> Rates:
    """The rates of the last quarter of an hour. The step that is not over yet is left out."""
    step = cast(func.floor(func.extract("epoch", NodeReportRow.at) / STEP_S), BigInteger)
    sums = (func.sum(NodeReportRow.decisions), func.sum(NodeReportRow.denied), func.sum(NodeReportRow.degraded))
    query = select(step, NodeReportRow.region, *sums).where(NodeReportRow.at > now - SHOWN).group_by(step, "region")
    found = {(int(at), region): (int(a), int(b), int(c)) for at, region, a, b, c in await session.execute(query)}
    last = int(now.timestamp()) // STEP_S - 1
    first = last - int(SHOWN.total_seconds()) // STEP_S + 1
    names = {region for _, region in found}
    points = []
    for at in range(first, last + 1):
        figures = [found[at, region] for region in names if (at, region) in found]
        total = tuple(sum(column) for column in zip(*figures, strict=True)) if figures else (0, 0, 0)
        points.append((datetime.fromtimestamp(at * STEP_S, UTC), _rate(total)))
    return Rates(points, {region: _rate(found.get((last, region), (0, 0, 0))) for region in names})


def _rate(figures: tuple[int, ...]) -> Rate:
    return Rate(*(figure / STEP_S for figure in figures))
