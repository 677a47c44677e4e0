"""Queries of the look for drift: the names that documents should have, and every row that becomes a document."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

from sqlalchemy import Select, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from control_plane.adaptive.models import AdaptivePolicyRow
from control_plane.blocks.models import BlockRow
from control_plane.clients.models import ClientRow, KeyRow
from control_plane.credentials.reporters.models import ReporterRow
from control_plane.credentials.tokens.models import Token
from control_plane.enforcement.models import EnforcementRow
from control_plane.orm import Base
from control_plane.regions.models import RegionRow
from control_plane.routes.models import BackendRow, EndpointRow

ROWS_A_QUERY = 500
Row = TypeVar("Row", bound=Base)
_DOCUMENTS = text("SELECT id FROM config_documents WHERE kind = :kind AND body IS NOT NULL")
_NAMES: dict[str, Select[Any]] = {
    "region": select(RegionRow.region),
    "backend": select(BackendRow.backend),
    "endpoint": select(EndpointRow.endpoint),
    "gateway": select(Token.name).where(Token.role == "gateway", Token.revoked_at.is_(None)),
    "client": select(ClientRow.client),
    "key": select(KeyRow.sha256),
    "block": select(BlockRow.block),
    "enforcement": select(EnforcementRow.target),
    "adaptive_policy": select(AdaptivePolicyRow.policy),
    "reporter": select(ReporterRow.reporter),
}
KINDS = tuple(_NAMES)
"""Documents that have the name of a row."""


async def document_names(session: AsyncSession, kind: str) -> set[str]:
    """The names of a kind's documents."""
    return set(await session.scalars(_DOCUMENTS, {"kind": kind}))


async def row_names(session: AsyncSession, kind: str) -> set[str]:
    """The names that a kind's documents should have, by its table."""
    return set(await session.scalars(_NAMES[kind]))


async def all_rows(session: AsyncSession, table: type[Row]) -> AsyncIterator[Sequence[Row]]:
    """Every row of a table, some at a time."""
    found = await session.stream_scalars(select(table).execution_options(yield_per=ROWS_A_QUERY))
    async for rows in found.partitions():
        yield rows


async def rows_by(
    session: AsyncSession, table: type[Row], name: InstrumentedAttribute[str]
) -> AsyncIterator[Sequence[Row]]:
    """Every row in the order of ``name``, some at a time, each chunk by a query of its own; then it is forgotten."""
    after = ""
    while True:
        page = select(table).where(name > after).order_by(name).limit(ROWS_A_QUERY)
        rows = (await session.scalars(page)).all()
        if not rows:
            return
        after = getattr(rows[-1], name.key)
        yield rows
        session.expunge_all()
