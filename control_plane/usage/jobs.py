"""Jobs of usage: roll days up, make partitions ahead, drop old data."""

from datetime import UTC, date, datetime, timedelta

from control_plane.database import Database
from control_plane.jobs.registry import Job
from control_plane.usage import upkeep_repository as repository
from control_plane.usage.partitions import Partitions, drop_before
from control_plane.usage.repository import client_ranges

ROLL_UP_EVERY_S = 900.0
TIDY_EVERY_S = 3_600.0
AHEAD = timedelta(days=3)
SOURCES_KEPT = timedelta(days=90)
"""A run of a node is remembered for longer than any stream can hold its batches."""
ALERTS_KEPT = timedelta(days=400)
"""Longer than the longest window, as a forgotten alert would be sent again."""
CLIENTS_A_CHUNK = 2_000
"""Clients a query: a day of that many stays far below the timeout of a command."""


def usage_jobs(database: Database, partitions: Partitions, *, hourly_days: int, daily_months: int) -> list[Job]:
    """The jobs of usage; hours of clients are kept for ``hourly_days``, days and totals for ``daily_months``."""

    async def roll() -> str:
        days = await roll_up(database, partitions, datetime.now(UTC).date())
        return f"Rolled up {len(days)} days."

    async def tidy_up() -> str:
        return await tidy(
            database, partitions, datetime.now(UTC).date(), hourly_days=hourly_days, daily_months=daily_months
        )

    return [Job("usage-roll-up", ROLL_UP_EVERY_S, roll), Job("usage-retention", TIDY_EVERY_S, tidy_up)]


async def roll_up(database: Database, partitions: Partitions, today: date) -> list[date]:
    """Make the daily rows of every day before ``today`` with changed hours. Returns these days.

    A day whose hours changed again meanwhile is not among them; the next run takes it.
    """
    async with database.read() as session:
        days = await repository.stale_days(session, today)
    done = []
    for day in days:
        await partitions.ensure({day})
        if await _roll_up_day(database, day):
            done.append(day)
    return done


async def _roll_up_day(database: Database, day: date) -> bool:
    # Nobody reads daily rows of a stale day, and a shipment that adds hours to it makes another version of its state:
    # so the chunks need no common transaction, whose lock would hold up late shipments.
    async with database.read() as session:
        version = await repository.version_of_day(session, day)
        ranges = await client_ranges(session, CLIENTS_A_CHUNK)
    for clients in ranges:
        async with database.transaction() as session:
            await repository.roll_up(session, day, clients)
    async with database.transaction() as session:
        return await repository.mark_rolled_up(session, day, version)


async def tidy(database: Database, partitions: Partitions, today: date, *, hourly_days: int, daily_months: int) -> str:
    """Make partitions for coming days and drop old ones. Hours are dropped once their day is rolled up."""
    made = await partitions.ensure({today + timedelta(days=days) for days in range(AHEAD.days + 1)})
    oldest_hour = today - timedelta(days=hourly_days)
    async with database.read() as session:
        first_stale = await repository.first_stale_day(session)
    oldest_hour = min(oldest_hour, first_stale or oldest_hour)
    oldest_day = today - timedelta(days=31 * daily_months)
    dropped = await drop_before(database, "usage_hourly", oldest_hour)
    dropped += await drop_before(database, "usage_daily", oldest_day)
    dropped += await drop_before(database, "usage_totals", oldest_day)
    partitions.forget()
    async with database.transaction() as session:
        await repository.delete_old(session, sources=SOURCES_KEPT, alerts=ALERTS_KEPT, days_before=oldest_day)
    return f"Made {made} partitions, dropped {len(dropped)}."
