"""All names of clients in ranges: what one statement would take too long for is asked of one range after the other."""

from itertools import pairwise
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.clients.repository import every_nth

_BEHIND_ALL = "\U0010ffff"


class ClientRange(NamedTuple):
    """Names from ``first`` up to and not including ``after``."""

    first: str
    after: str


async def client_ranges(session: AsyncSession, clients: int) -> list[ClientRange]:
    """Ranges with so many clients each, and with whoever else has usage: nobody (the empty name), and who is gone."""
    bounds = ["", *await every_nth(session, clients), _BEHIND_ALL]
    return [ClientRange(first, after) for first, after in pairwise(bounds)]
