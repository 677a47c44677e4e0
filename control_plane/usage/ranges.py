"""All names of clients in ranges: what one statement would take too long for is asked of one range after the other."""

from itertools import pairwise
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.clients.models import ClientRow

_BEHIND_ALL = "\U0010ffff"


class ClientRange(NamedTuple):
    """Names from ``first`` up to and not including ``after``."""

    first: str
    after: str


async def client_ranges(session: AsyncSession, clients: int) -> list[ClientRange]:
    """Ranges with so many clients each, and with whoever else has usage: nobody (the empty name), and who is gone."""
    numbered = select(ClientRow.client, func.row_number().over(order_by=ClientRow.client).label("number")).subquery()
    every = select(numbered.c.client).where(numbered.c.number % clients == 0).order_by(numbered.c.client)
    bounds = ["", *(await session.scalars(every)).all(), _BEHIND_ALL]
    return [ClientRange(first, after) for first, after in pairwise(bounds)]
