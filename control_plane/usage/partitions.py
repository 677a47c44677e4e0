"""Partitions of the tables of usage: made ahead of time, dropped when they are old."""

from datetime import date, datetime, timedelta
from typing import Literal, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.database import Database
from control_plane.usage.models import PARTS_SCHEMA

Span = Literal["day", "month"]
SPANS: dict[str, Span] = {"usage_hourly": "day", "usage_totals": "month", "usage_daily": "month"}
"""Hours of clients are many and short-lived, with a partition a day; the rest is small, with a partition a month."""
_LOCK = 0x71DE6A8E
_FILLFACTOR = 70
"""Rows of the current hour change every second: room beside them keeps the new version on the same page."""


class Partition(NamedTuple):
    """A partition: the days from ``first`` up to and not including ``after``."""

    table: str
    name: str
    first: date
    after: date


def partition_of(table: str, day: date) -> Partition:
    """The partition of ``table`` that holds ``day``."""
    if SPANS[table] == "day":
        return Partition(table, f"{table}_{day:%Y%m%d}", day, day + timedelta(days=1))
    first = day.replace(day=1)
    after = (first + timedelta(days=32)).replace(day=1)
    return Partition(table, f"{table}_{first:%Y%m}", first, after)


class Partitions:
    """Makes missing partitions, and remembers existing ones."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._there: set[str] = set()

    async def ensure(self, days: set[date]) -> int:
        """Make missing partitions for these days in all tables. Returns how many."""
        wanted = {partition_of(table, day) for day in days for table in SPANS}
        missing = [partition for partition in sorted(wanted) if partition.name not in self._there]
        if not missing:
            return 0
        made = 0
        async with self._database.transaction() as session:
            # one replica at a time; the lock goes with the transaction
            await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            for partition in missing:
                made += await _make(session, partition)
        self._there |= {partition.name for partition in missing}
        return made

    def forget(self) -> None:
        """Forget known partitions after some were dropped."""
        self._there.clear()


async def _make(session: AsyncSession, partition: Partition) -> bool:
    name = f"{PARTS_SCHEMA}.{partition.name}"
    if await session.scalar(text("SELECT to_regclass(:name) IS NOT NULL"), {"name": name}):
        return False
    # Made alone and then attached: that stops no reader and no writer, as making it in place would.
    await session.execute(
        text(f"CREATE TABLE {name} (LIKE {partition.table} INCLUDING ALL) WITH (fillfactor = {_FILLFACTOR})")
    )
    bounds = f"FOR VALUES FROM ('{_bound(partition, partition.first)}') TO ('{_bound(partition, partition.after)}')"
    await session.execute(text(f"ALTER TABLE {partition.table} ATTACH PARTITION {name} {bounds}"))
    return True


def _bound(partition: Partition, day: date) -> str:
    return day.isoformat() if partition.table == "usage_daily" else f"{day.isoformat()} 00:00:00+00"


async def drop_before(database: Database, table: str, day: date) -> list[str]:
    """Drop the partitions of ``table`` that end before ``day``. Returns their names."""
    query = text("SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
                 "WHERE i.inhparent = to_regclass(:table) ORDER BY c.relname")  # fmt: skip
    async with database.read() as session:
        names = (await session.scalars(query, {"table": table})).all()
    old = [name for name in names if _first_day(table, name) is not None and _is_before(table, name, day)]
    for name in old:
        # one at a time: the table is locked for a moment each, and a lock that does not come gives up soon
        async with database.transaction() as session:
            await session.execute(text(f'DROP TABLE {PARTS_SCHEMA}."{name}"'))
    return old


def _first_day(table: str, name: str) -> date | None:
    pattern = "%Y%m%d" if SPANS[table] == "day" else "%Y%m"
    try:
        return datetime.strptime(name.removeprefix(f"{table}_"), pattern).date()  # noqa: DTZ007  a date, not an instant
    except ValueError:
        return None


def _is_before(table: str, name: str, day: date) -> bool:
    first = _first_day(table, name)
    return first is not None and partition_of(table, first).after <= day
