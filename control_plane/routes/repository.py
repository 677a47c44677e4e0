"""Queries on the route table."""

from collections.abc import Sequence

import msgspec
from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.resources import NamedRows
from control_plane.routes.models import RULE_IDS, BackendLoadRow, BackendRow, EndpointRow
from tidegate.contract.load import RegionLoad

backends = NamedRows(BackendRow, BackendRow.backend, sortable={"adaptive": BackendRow.adaptive})


async def next_rule_ids(session: AsyncSession, count: int) -> Sequence[int]:
    """So many unused rule ids."""
    return (await session.scalars(select(RULE_IDS.next_value()).select_from(func.generate_series(1, count)))).all()


async def endpoint_by_shape(session: AsyncSession, shape: str) -> str | None:
    """The endpoint with this shape, if there is one."""
    return await session.scalar(select(EndpointRow.endpoint).where(EndpointRow.shape == shape))


async def loads_of(session: AsyncSession, backend: str) -> Sequence[BackendLoadRow]:
    """Each region's newest report on a backend, by region."""
    query = select(BackendLoadRow).where(BackendLoadRow.backend == backend).order_by(BackendLoadRow.region)
    return (await session.scalars(query)).all()


async def store_loads(session: AsyncSession, region: str, load: RegionLoad) -> None:
    """Store a region's reports on known backends; others are dropped."""
    known = await backends.existing(session, [one.backend for one in load.backends])
    for one in sorted(load.backends, key=lambda one: one.backend):  # one order: two writers never wait for each other
        if one.backend not in known:
            continue
        values = {"node": load.node, "state": msgspec.to_builtins(one), "reported_at": func.now()}
        statement = insert(BackendLoadRow).values(region=region, backend=one.backend, **values)
        await session.execute(statement.on_conflict_do_update(index_elements=["region", "backend"], set_=values))


async def forget_shapes(session: AsyncSession, names: Sequence[str]) -> None:
    """Give up the shapes of these endpoints, which are written or deleted next: so that two can change places."""
    shape = "!" + EndpointRow.endpoint  # no method begins like this
    await session.execute(update(EndpointRow).where(EndpointRow.endpoint.in_(names)).values(shape=shape))
