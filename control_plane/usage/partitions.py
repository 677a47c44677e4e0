"""Partitions of the tables of usage: made ahead of time, dropped when they are old."""

from datetime import date, datetime, timedelta
from typing import Literal, NamedTuple

from control_plane.database import Database
from control_plane.usage import upkeep_repository as repository

Span = Literal["day", "month"]
SPANS: dict[str, Span] = {"usage_hourly": "day", "usage_totals": "month", "usage_daily": "month"}
"""Hours of clients are many and short-lived, with a partition a day; the rest is small, with a partition a month."""


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
            await repository.lock_partitions(session)
            for partition in missing:
                first, after = (_bound(partition, day) for day in (partition.first, partition.after))
                made += await repository.make_partition(session, partition.table, partition.name, first, after)
        self._there |= {partition.name for partition in missing}
        return made

    def forget(self) -> None:
        """Forget known partitions after some were dropped."""
        self._there.clear()


def _bound(partition: Partition, day: date) -> str:
    return day.isoformat() if partition.table == "usage_daily" else f"{day.isoformat()} 00:00:00+00"


async def drop_before(database: Database, table: str, day: date) -> list[str]:
    """Drop the partitions of ``table`` that end before ``day``. Returns their names."""
    async with database.read() as session:
        names = await repository.partition_names(session, table)
    old = [name for name in names if _is_before(table, name, day)]
    for name in old:
        # one at a time: each locks the table for a moment, and a lock that is not free soon gives up
        async with database.transaction() as session:
            await repository.drop_partition(session, name)
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
