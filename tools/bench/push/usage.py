"""Usage of many clients: how long it takes to roll up a day of it, to say who is near a limit, and to ask what-if."""

import time
from datetime import UTC, date, datetime, timedelta
from http import HTTPStatus
from typing import Any

import sqlalchemy as sa
from rich.console import Console
from rich.progress import track
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from control_plane.database import Database
from control_plane.usage.partitions import Partitions
from tools.bench.push.place import Place

SIZES = ((10_000, 31), (100_000, 7))
"""Clients, and for how many days they have been there."""
LIMIT = {"name": "monthly", "limit": 1_000_000, "window": "month"}
TRIED: dict[str, dict[str, Any]] = {
    "one limit": {"limit": {"limit": 60, "window": "hour"}},
    "three limits": {
        "limits": [
            {"limit": 60, "window": "hour"},
            {"limit": 1_000, "window": "day"},
            {"limit": 1, "window_s": 30, "endpoints": ["get"]},
        ]
    },
}
_CLIENTS = """
    INSERT INTO clients (client, plan, status, attributes, generation)
    SELECT 'customer-' || lpad(c::text, 7, '0'), 'free', 'active', '{}', 0 FROM generate_series(0, :clients - 1) c
"""
# Every client is active in 12 of 24 hours at two endpoints, one in a hundred 20 times as much; rows lie in the order of
# their hours, and within one as they come. Rows of the limit are those that rolling up and `near-limit` read.
_ROWS = """
    SELECT 'customer-' || lpad(c::text, 7, '0') AS client, 'free' AS plan, l AS limit_name, e AS endpoint,
           'us-east' AS region, CASE l WHEN '' THEN 'key_' || lpad(to_hex(c), 16, '0') ELSE '' END AS key_id,
           n AS allowed, n / 20 AS denied, 0 AS shadow_denied, n AS cost, n / 20 AS denied_cost
"""
_LIMIT_NAMES = "unnest(CAST(:limit_names AS text[])) l, unnest(ARRAY['get', 'put']) e"
_COLUMNS = "client, plan, limit_name, endpoint, region, key_id, allowed, denied, shadow_denied, cost, denied_cost"
_HOURS = f"""
    INSERT INTO usage_hourly ({_COLUMNS}, hour)
    {_ROWS}, h
    FROM generate_series(CAST(:at AS timestamptz), :at + interval '23 hours', interval '1 hour') h,
         generate_series(0, :clients - 1) c, {_LIMIT_NAMES},
         LATERAL (SELECT (10 + abs(hashtext(c::text || h::text)) % 100) * CASE c % 100 WHEN 0 THEN 20 ELSE 1 END AS n) f
    WHERE (extract(hour FROM h AT TIME ZONE 'UTC')::int + c) % 24 < 12
    ORDER BY h, hashtext(c::text)
"""
_DAYS = f"""
    INSERT INTO usage_daily ({_COLUMNS}, day)
    {_ROWS}, CAST(:at AS date)
    FROM generate_series(0, :clients - 1) c, {_LIMIT_NAMES},
         LATERAL (SELECT 12 * (10 + abs(hashtext(c::text || e)) % 100) * CASE c % 100 WHEN 0 THEN 20 ELSE 1 END AS n) f
"""


async def measured(place: Place, clients: int, days: int, wait_s: float, console: Console) -> dict[str, Any]:
    """The figures of so many clients on one plan, active for so many days."""
    with place.admin() as admin:
        admin.put("/v1/plans/free", json={"limits": [LIMIT]}).raise_for_status()
    await _fill(place, clients, days, console)
    figures: dict[str, Any] = {"a day rolled up, s": _rolled_up(place, wait_s)}
    console.print(figures)
    figures["near a limit by the month, s"] = _asked(place, "GET", "near-limit?threshold=0.1", None)[0]
    for name, limits in TRIED.items():
        for back in sorted({7, days}):
            took_s, answer = _asked(place, "POST", "what-if", {**limits, "days": back})
            figures[f"what-if, {name}, {back} days, s"] = took_s
            figures[f"what-if, {name}, {back} days"] = "judged" if "would_deny" in answer else "refused: too much"
            console.print(figures)
    return {f"{clients:,} clients, {days} days: {name}": value for name, value in figures.items()}


async def _fill(place: Place, clients: int, days: int, console: Console) -> None:
    today = datetime.now(UTC).date()
    all_days = [today - timedelta(days=back) for back in range(days, -1, -1)]
    database = Database(place.database_url, connect_timeout_s=5.0, command_timeout_s=60.0, pool_size=1)
    await Partitions(database).ensure(set(all_days))
    await database.close()
    engine = create_async_engine(place.database_url)
    try:
        async with engine.connect() as plain:
            connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(sa.text("SET synchronous_commit = off"))
            await connection.execute(sa.text(_CLIENTS), {"clients": clients})
            for day in track(all_days, "usage of days", console=console):
                await _fill_day(connection, clients, day, today)
            await connection.execute(sa.text("ANALYZE usage_hourly, usage_daily, clients"))
    finally:
        await engine.dispose()


async def _fill_day(connection: AsyncConnection, clients: int, day: date, today: date) -> None:
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    rolled_up = day < today - timedelta(days=1)  # yesterday is rolled up by the job
    names = [""] if rolled_up else ["", LIMIT["name"]]
    await connection.execute(sa.text(_HOURS), {"at": begin, "clients": clients, "limit_names": names})
    if rolled_up:
        values = {"at": day, "clients": clients, "limit_names": ["", LIMIT["name"]]}
        await connection.execute(sa.text(_DAYS), values)
    await connection.execute(sa.text("INSERT INTO usage_days VALUES (:day, :stale, null)"),
                             {"day": day, "stale": not rolled_up})  # fmt: skip


def _rolled_up(place: Place, wait_s: float) -> float:
    """Seconds that the job says it took for yesterday."""
    began = time.monotonic()
    with place.admin() as admin:
        asked = admin.post("/v1/jobs/usage-roll-up/run").raise_for_status().json()
        while asked["running"] or asked["last_started_at"] is None or asked["last_started_at"] < asked["requested_at"]:
            if time.monotonic() - began > wait_s:
                raise SystemExit("the day was not rolled up")
            time.sleep(0.2)
            asked = admin.get("/v1/jobs/usage-roll-up").json()
    if asked["last_outcome"] != "done" or "1 days" not in asked["last_detail"]:
        raise SystemExit(f"rolling up: {asked['last_outcome']}: {asked['last_detail']}")
    took_s: float = asked["last_duration_s"]
    return took_s


def _asked(place: Place, method: str, question: str, body: dict[str, Any] | None) -> tuple[float, dict[str, Any]]:
    began = time.monotonic()
    with place.admin() as admin:
        answer = admin.request(method, f"/v1/plans/free/{question}", json=body)
    took_s = time.monotonic() - began
    if answer.status_code != HTTPStatus.UNPROCESSABLE_ENTITY:  # which says that it would take too long
        answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return took_s, found
