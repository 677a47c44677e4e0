"""Queries that keep usage small: partitions, the daily rows, and what is too old."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.usage.models import LARGEST, PARTS_SCHEMA, UsageAlert, UsageDayState, UsageSource
from control_plane.usage.repository import FIGURES, ClientRange

_LOCK = 0x71DE6A8E
_FILLFACTOR = 70
"""Rows of the current hour change every second: room beside them keeps the new version on the same page."""
_PARTITIONS = text("""
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass(:table) ORDER BY c.relname
""")
_MARK = text("SELECT xmin::text FROM usage_days WHERE day = :day")
_ROLLED_UP = text("""
UPDATE usage_days SET stale = false, rolled_up_at = now() WHERE day = :day AND xmin::text = :mark RETURNING day
""")
_DELETE_DAY = text("DELETE FROM usage_daily WHERE day = :day AND client >= :first AND client < :after")
_KEY = "client, plan, limit_name, endpoint, region, key_id"
_SUMS = ", ".join(f"GREATEST(-{LARGEST}, LEAST(sum({name}), {LARGEST}))" for name in FIGURES)
_INSERT_DAY = text(
    f"INSERT INTO usage_daily (day, {_KEY}, {', '.join(FIGURES)}) "  # noqa: S608  names of this package
    f"SELECT CAST(:day AS date), {_KEY}, {_SUMS} FROM usage_hourly "
    f"WHERE hour >= :begin AND hour < :end AND client >= :first AND client < :after GROUP BY {_KEY}"
)


async def lock_partitions(session: AsyncSession) -> None:
    """Wait until no other replica makes partitions; the lock ends with the transaction."""
    await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


async def make_partition(session: AsyncSession, table: str, name: str, first: str, after: str) -> bool:
    """Make the partition of ``table`` from ``first`` up to ``after``, unless it exists. Returns whether it did."""
    name = f"{PARTS_SCHEMA}.{name}"
    if await session.scalar(text("SELECT to_regclass(:name) IS NOT NULL"), {"name": name}):
        return False
    # made alone and then attached, which stops no reader and no writer; making it in place would
    await session.execute(text(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL) WITH (fillfactor = {_FILLFACTOR})"))
    bounds = f"FOR VALUES FROM ('{first}') TO ('{after}')"
    await session.execute(text(f"ALTER TABLE {table} ATTACH PARTITION {name} {bounds}"))
    return True


async def partition_names(session: AsyncSession, table: str) -> Sequence[str]:
    """The partitions of ``table``, by name."""
    return (await session.scalars(_PARTITIONS, {"table": table})).all()


async def drop_partition(session: AsyncSession, name: str) -> None:
    """Drop a partition."""
    await session.execute(text(f'DROP TABLE {PARTS_SCHEMA}."{name}"'))


async def stale_days(session: AsyncSession, before: date) -> Sequence[date]:
    """Days before ``before`` whose daily rows lack some hours."""
    query = select(UsageDayState.day).where(UsageDayState.stale, UsageDayState.day < before)
    return (await session.scalars(query.order_by(UsageDayState.day))).all()


async def first_stale_day(session: AsyncSession) -> date | None:
    """The first day whose daily rows lack some hours."""
    return await session.scalar(select(func.min(UsageDayState.day)).where(UsageDayState.stale))


async def version_of_day(session: AsyncSession, day: date) -> str | None:
    """The version of a day's state: it changes whenever hours are added to the day."""
    version: str | None = await session.scalar(_MARK, {"day": day})
    return version


async def mark_rolled_up(session: AsyncSession, day: date, version: str | None) -> bool:
    """Mark a day as complete, unless its state has another version. Returns whether it was marked."""
    return (await session.execute(_ROLLED_UP, {"day": day, "mark": version})).first() is not None


async def roll_up(session: AsyncSession, day: date, clients: ClientRange) -> None:
    """Make the daily rows of some clients anew from their hours."""
    part: dict[str, object] = {"day": day, **clients._asdict()}
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    await session.execute(_DELETE_DAY, part)
    await session.execute(_INSERT_DAY, part | {"begin": begin, "end": begin + timedelta(days=1)})


async def delete_old(session: AsyncSession, *, sources: timedelta, alerts: timedelta, days_before: date) -> None:
    """Delete runs of nodes and alerts older than these, and states of days before ``days_before``."""
    await session.execute(delete(UsageSource).where(UsageSource.seen_at < func.now() - sources))
    await session.execute(delete(UsageAlert).where(UsageAlert.created_at < func.now() - alerts))
    await session.execute(delete(UsageDayState).where(UsageDayState.day < days_before))
