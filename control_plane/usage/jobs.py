"""Jobs of usage: roll days up, make partitions ahead, drop old data."""

from datetime import UTC, date, datetime, timedelta

from sqlalchemy import delete, func, select, text

from control_plane.database import Database
from control_plane.jobs.registry import Job
from control_plane.usage.models import LARGEST, UsageAlert, UsageDayState, UsageSource
from control_plane.usage.partitions import Partitions, drop_before
from control_plane.usage.repository import ClientRange, client_ranges

ROLL_UP_EVERY_S = 900.0
TIDY_EVERY_S = 3_600.0
AHEAD = timedelta(days=3)
SOURCES_KEPT = timedelta(days=90)
"""A run of a node is remembered for longer than any stream can hold its batches."""
ALERTS_KEPT = timedelta(days=400)
"""Longer than the longest window, as a forgotten alert would be sent again."""
CLIENTS_A_PART = 2_000
"""Clients a query: a day of that many stays far below the timeout of a command."""
_FIGURES = ("allowed", "denied", "shadow_denied", "cost", "denied_cost")


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

    One whose hours changed again meanwhile is not among them: it is for the next time.
    """
    async with database.read() as session:
        query = select(UsageDayState.day).where(UsageDayState.stale, UsageDayState.day < today)
        days = list((await session.scalars(query.order_by(UsageDayState.day))).all())
    done = []
    for day in days:
        await partitions.ensure({day})
        if await _roll_up_day(database, day):
            done.append(day)
    return done


async def _roll_up_day(database: Database, day: date) -> bool:
    # Nobody reads daily rows of a stale day, and whoever adds hours to it marks it anew, which makes another version of
    # its mark: so the parts need no common transaction, whose lock would hold up late shipments.
    version: dict[str, object] = {"day": day}
    async with database.read() as session:
        version["mark"] = await session.scalar(text("SELECT xmin::text FROM usage_days WHERE day = :day"), version)
        ranges = await client_ranges(session, CLIENTS_A_PART)
    for clients in ranges:
        await _roll_up_part(database, day, clients)
    async with database.transaction() as session:
        done = "UPDATE usage_days SET stale = false, rolled_up_at = now() WHERE day = :day AND xmin::text = :mark"
        return (await session.execute(text(done + " RETURNING day"), version)).first() is not None


async def _roll_up_part(database: Database, day: date, clients: ClientRange) -> None:
    sums = ", ".join(f"GREATEST(-{LARGEST}, LEAST(sum({name}), {LARGEST}))" for name in _FIGURES)
    key = "client, plan, limit_name, endpoint, region, key_id"
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    part: dict[str, object] = {"day": day, **clients._asdict()}
    async with database.transaction() as session:
        await session.execute(
            text("DELETE FROM usage_daily WHERE day = :day AND client >= :first AND client < :after"), part
        )
        await session.execute(
            text(
                f"INSERT INTO usage_daily (day, {key}, {', '.join(_FIGURES)}) "  # noqa: S608  names from this file
                f"SELECT CAST(:day AS date), {key}, {sums} FROM usage_hourly "
                f"WHERE hour >= :begin AND hour < :end AND client >= :first AND client < :after GROUP BY {key}"
            ),
            part | {"begin": begin, "end": begin + timedelta(days=1)},
        )


async def tidy(database: Database, partitions: Partitions, today: date, *, hourly_days: int, daily_months: int) -> str:
    """Make partitions for coming days and drop old ones. Hours are dropped once their day is rolled up."""
    made = await partitions.ensure({today + timedelta(days=days) for days in range(AHEAD.days + 1)})
    oldest_hour = today - timedelta(days=hourly_days)
    async with database.read() as session:
        first_stale = await session.scalar(select(func.min(UsageDayState.day)).where(UsageDayState.stale))
    oldest_hour = min(oldest_hour, first_stale or oldest_hour)
    oldest_day = today - timedelta(days=31 * daily_months)
    dropped = await drop_before(database, "usage_hourly", oldest_hour)
    dropped += await drop_before(database, "usage_daily", oldest_day)
    dropped += await drop_before(database, "usage_totals", oldest_day)
    partitions.forget()
    async with database.transaction() as session:
        await session.execute(delete(UsageSource).where(UsageSource.seen_at < func.now() - SOURCES_KEPT))
        await session.execute(delete(UsageAlert).where(UsageAlert.created_at < func.now() - ALERTS_KEPT))
        await session.execute(delete(UsageDayState).where(UsageDayState.day < oldest_day))
    return f"Made {made} partitions, dropped {len(dropped)}."
