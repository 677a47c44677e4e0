"""Days from hours, partitions that come and go, who is near a limit, and what a limit would have done."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from control_plane.database import Database
from control_plane.errors import InvalidError
from control_plane.migration import migrate, revert
from control_plane.usage import jobs as rollup
from control_plane.usage import near_limit_repository as nearness
from control_plane.usage.jobs import roll_up, tidy
from control_plane.usage.models import LARGEST
from control_plane.usage.partitions import Partitions, drop_before
from control_plane.usage.schemas import WhatIfView
from control_plane.usage.what_if import estimate
from control_plane.usage.what_if_repository import CandidateLimit
from testing.control_plane import RunningControlPlane
from tests.integration.control_plane.conftest import ADMIN_TOKEN
from tests.integration.control_plane.usage_batches import FREE, batch, cell, now, ship, this_hour, totals
from tests.reference.buckets import bucket
from tests.reference.windows import fixed_window, sliding_window
from tidegate.contract.limits import Algorithm, LimitRule
from tidegate.contract.usage import Place
from tidegate.stack.postgres import PostgresServer
from tidegate.top.readings import AdminReader

NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
async def a_database(
    served: RunningControlPlane, postgres_server: PostgresServer, database_name: str
) -> AsyncIterator[Database]:
    """The same database, once the leader's own first run of these jobs is over."""
    async with asyncio.timeout(15):
        while True:
            jobs = (await served.admin.get("/v1/jobs")).json()["items"]
            if all(job["runs"] for job in jobs if job["job"] in {"usage-roll-up", "usage-retention"}):
                break
            await asyncio.sleep(0.05)
    database = Database(postgres_server.url(database_name), connect_timeout_s=10, command_timeout_s=10, pool_size=2)
    yield database
    await database.close()


def today() -> date:
    return now().date()


def yesterday_noon() -> int:
    """Hours since the epoch."""
    return this_hour() - now().hour - 12


def long_ago() -> dict[str, str]:
    return {"from": (now() - timedelta(days=5)).isoformat()}


async def days(served: RunningControlPlane) -> list[tuple[str, int, int]]:
    params = {"group_by": "day,client", "client": "acme", **long_ago()}
    items = (await served.admin.get("/v1/usage", params=params)).raise_for_status().json()["items"]
    return [(item["day"], item["allowed"], item["denied"]) for item in items]


async def all_the_time(served: RunningControlPlane) -> dict[str, tuple[int, int]]:
    found = {}
    for group_by in ("client", "key"):
        params = {"group_by": group_by, "client": "acme", **long_ago()}
        (item,) = (await served.admin.get("/v1/usage", params=params)).raise_for_status().json()["items"]
        found[group_by] = item["allowed"], item["denied"]
    return found


async def test_days_are_the_sum_of_their_hours_before_and_after_the_roll_up_and_when_hours_come_late(
    served: RunningControlPlane, a_database: Database, postgres_server: PostgresServer, database_name: str
) -> None:
    partitions = Partitions(a_database)
    await ship(
        served,
        batch(1, cell(allowed=5, denied=1), hour=yesterday_noon()),
        batch(2, cell(allowed=6), hour=yesterday_noon() + 3),
        batch(3, cell(allowed=7)),
    )
    yesterday = today() - timedelta(days=1)
    expected = [(yesterday.isoformat(), 11, 1), (today().isoformat(), 7, 0)]
    assert await days(served) == expected
    assert await roll_up(a_database, partitions, today()) == [yesterday]
    assert await days(served) == expected
    assert await roll_up(a_database, partitions, today()) == []
    # the hours may go: the day stays
    await asyncio.to_thread(
        postgres_server.execute, "DELETE FROM usage_hourly WHERE hour < current_date", database=database_name
    )
    assert await days(served) == expected
    assert await all_the_time(served) == {"client": (18, 1), "key": (18, 1)}
    # what comes late makes the day anew (here from the late hour alone, as the others were deleted)
    await ship(served, batch(4, cell(allowed=2), hour=yesterday_noon()))
    assert await roll_up(a_database, partitions, today()) == [yesterday]
    assert (await days(served))[0] == (yesterday.isoformat(), 2, 0)


async def test_a_day_is_rolled_up_in_parts_that_late_hours_do_not_wait_for(
    served: RunningControlPlane, a_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup, "CLIENTS_A_CHUNK", 1)
    (await served.admin.put("/v1/plans/free", json={})).raise_for_status()
    for client in ("beta", "delta"):
        (await served.admin.put(f"/v1/clients/{client}", json={"plan": "free"})).raise_for_status()
    names = ["", "alpha", "beta", "gamma", "delta", "omega"]
    await ship(served, batch(1, *(cell(name, allowed=5) for name in names), hour=yesterday_noon()))
    yesterday = today() - timedelta(days=1)
    partitions = Partitions(a_database)
    blocker = await a_database.listen_connection()
    try:
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE usage_daily")
            rolling = asyncio.create_task(roll_up(a_database, partitions, today()))
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'usage_daily'::regclass"
            async with asyncio.timeout(5):
                while not await blocker.fetchval(waiting):
                    await asyncio.sleep(0.01)
            (await ship(served, batch(2, cell("beta", allowed=2), hour=yesterday_noon()))).raise_for_status()
        assert await rolling == [], "more came meanwhile"
    finally:
        await blocker.close()
    assert await roll_up(a_database, partitions, today()) == [yesterday]
    params = {"group_by": "day,client", **long_ago()}
    items = (await served.admin.get("/v1/usage", params=params)).raise_for_status().json()["items"]
    assert {item["client"]: item["allowed"] for item in items} == {
        name or None: 7 if name == "beta" else 5 for name in names
    }


async def test_partitions_are_made_ahead_and_old_ones_are_dropped_but_never_before_their_roll_up(
    served: RunningControlPlane, a_database: Database, postgres_server: PostgresServer, database_name: str
) -> None:
    partitions = Partitions(a_database)
    await ship(served, batch(1, hour=this_hour() - 24 * 29), batch(2))
    done = await tidy(a_database, partitions, today(), hourly_days=20, daily_months=25)
    assert "dropped 0" in done, "its day is not rolled up yet"
    await roll_up(a_database, partitions, today())
    done = await tidy(a_database, partitions, today(), hourly_days=20, daily_months=25)
    assert "dropped 1" in done
    ahead = f"SELECT to_regclass('usage_parts.usage_hourly_{today() + timedelta(days=3):%Y%m%d}') IS NOT NULL"
    assert postgres_server.execute(ahead, database=database_name) == "t"
    everything = {"from": (now() - timedelta(days=60)).isoformat(), "group_by": "day,client"}
    assert (await totals(served, **everything))["allowed"] == 2


async def test_drops_whole_partitions_only(a_database: Database) -> None:
    partitions = Partitions(a_database)
    await partitions.ensure({date(2020, 1, 30), date(2020, 1, 31), date(2020, 2, 1)})
    assert await drop_before(a_database, "usage_hourly", date(2020, 1, 31)) == ["usage_hourly_20200130"]
    assert await drop_before(a_database, "usage_totals", date(2020, 1, 31)) == []
    assert await drop_before(a_database, "usage_totals", date(2020, 2, 1)) == ["usage_totals_202001"]
    assert len(await drop_before(a_database, "usage_hourly", date(2021, 1, 1))) == 2
    assert len(await drop_before(a_database, "usage_totals", date(2021, 1, 1))) == 1
    assert len(await drop_before(a_database, "usage_daily", date(2021, 1, 1))) == 2


async def test_lists_clients_near_a_limit_with_their_overrides(
    served: RunningControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = [
        {"name": "hourly", "limit": 100, "window": "hour"},
        {"name": "burst", "limit": 10, "window_s": 1},
        {"name": "by-ip", "limit": 10, "window": "day", "scope": "ip"},
    ]
    (await served.admin.put("/v1/plans/free", json={"limits": limits})).raise_for_status()
    for client in ("near", "over", "far", "generous", "elsewhere"):
        plan = "free" if client != "elsewhere" else "other"
        (await served.admin.put(f"/v1/plans/{plan}", json={"limits": limits})).raise_for_status()
        (await served.admin.put(f"/v1/clients/{client}", json={"plan": plan})).raise_for_status()
    (await served.admin.put("/v1/clients/generous/overrides/hourly", json={"limit": 1000})).raise_for_status()
    used = {"near": 80, "over": 130, "far": 79, "generous": 130, "elsewhere": 130}
    await ship(served, batch(1, *(cell(client, allowed=units) for client, units in used.items())))
    answer = (await served.admin.get("/v1/plans/free/near-limit", params={"threshold": 0.8})).json()
    assert [(item["client"], item["used"], item["of"]) for item in answer["items"]] == [
        ("over", 130, 100),
        ("near", 80, 100),
    ]
    assert {item["limit"]: item["reason"].split(",")[0] for item in answer["skipped"]} == {
        "burst": "its window is shorter than an hour",
        "by-ip": "it counts by ip",
    }
    monkeypatch.setattr(nearness, "CLIENTS_A_CHUNK", 1)
    assert (await served.admin.get("/v1/plans/free/near-limit", params={"threshold": 0.8})).json() == answer
    assert (await served.admin.get("/v1/plans/none/near-limit")).status_code == 404


async def test_a_sliding_hour_is_never_two(served: RunningControlPlane, a_database: Database) -> None:
    rule = LimitRule(id=1, name="hourly", limit=100, window_us=3_600_000_000)
    limits = [{"name": "hourly", "limit": 100, "window_s": 3_600}]
    (await served.admin.put("/v1/plans/free", json={"limits": limits})).raise_for_status()
    (await served.admin.put("/v1/clients/acme", json={"plan": "free"})).raise_for_status()
    begin_us = this_hour() * 3_600_000_000
    await ship(served, batch(1, cell(allowed=60), hour=this_hour() - 1), batch(2, cell(allowed=55)))
    state = None
    for number in range(115):  # one a minute, which the node allows
        verdict = sliding_window(rule, state, 1, begin_us + (number - 60) * 60_000_000)
        assert verdict.consumed.allowed
        state = verdict.on_consumed.state
    at_us = begin_us + 55 * 60_000_000
    left = sliding_window(rule, state, 0, at_us).consumed.remaining
    async with a_database.read() as session:
        (near,) = await nearness.near(session, "free", [rule], 0.1, datetime.fromtimestamp(at_us / 10**6, UTC))
    assert near.used == 100 - left == 60


async def test_what_cannot_be_true_of_one_hides_nobody_else_near_a_limit(served: RunningControlPlane) -> None:
    limits = [{"name": "hourly", "limit": 100, "window": "hour"}]
    (await served.admin.put("/v1/plans/free", json={"limits": limits})).raise_for_status()
    for client in ("near", "liar"):
        (await served.admin.put(f"/v1/clients/{client}", json={"plan": "free"})).raise_for_status()
    places = tuple(Place("free", f"route-{number}", FREE.limits) for number in range(5))
    lies = [cell("liar", allowed=2**53, place=place) for place in range(5) for _ in range(300)]
    await ship(served, batch(1, cell("near", allowed=80), *lies, places=places))  # more than 2^63 together
    answer = (await served.admin.get("/v1/plans/free/near-limit")).raise_for_status().json()
    assert [(item["client"], item["used"]) for item in answer["items"]] == [("liar", LARGEST), ("near", 80)]


async def test_a_long_window_is_made_of_days_and_of_the_hours_around_them(
    served: RunningControlPlane, a_database: Database
) -> None:
    limits = [{"name": "hourly", "limit": 100, "window_s": 20 * 86_400}]
    (await served.admin.put("/v1/plans/free", json={"limits": limits})).raise_for_status()
    (await served.admin.put("/v1/clients/acme", json={"plan": "free"})).raise_for_status()
    hours_ago = (0, 24, 24 * 5, 24 * 5 + 1, 24 * 10, 24 * 22)  # the last one is before the window
    batches = (
        batch(at + 1, cell("acme", allowed=10**at), hour=this_hour() - hours) for at, hours in enumerate(hours_ago)
    )
    await ship(served, *batches)

    async def used() -> list[int]:
        answer = await served.admin.get("/v1/plans/free/near-limit", params={"threshold": 0.1})
        return [item["used"] for item in answer.raise_for_status().json()["items"]]

    assert await used() == [11_111]
    partitions = Partitions(a_database)
    await roll_up(a_database, partitions, today())
    assert await used() == [11_111]
    await tidy(a_database, partitions, today(), hourly_days=3, daily_months=25)
    await ship(served, batch(7, cell("acme", allowed=5), hour=this_hour() - 24))
    assert await used() == [11_116], "what came late makes its day stale: it is made of its hours again"


async def test_estimates_what_a_limit_would_have_denied(served: RunningControlPlane) -> None:
    (await served.admin.put("/v1/plans/free", json={})).raise_for_status()
    for client in ("big", "small"):
        (await served.admin.put(f"/v1/clients/{client}", json={"plan": "free"})).raise_for_status()
    hours = [this_hour() - 30, this_hour() - 29, this_hour() - 28]
    await ship(
        served,
        *(
            batch(number, cell("big", allowed=200, denied=50), cell("small", allowed=10), hour=hour)
            for number, hour in enumerate(hours, 1)
        ),
    )

    async def what_if(**limit: object) -> dict[str, object]:
        answer = await served.admin.post("/v1/plans/free/what-if", json={"limit": limit, "days": 3})
        return dict(answer.raise_for_status().json())

    hourly = await what_if(limit=100, window="hour")
    assert (hourly["requests"], hourly["denied"], hourly["would_deny"]) == (780, 150, 450)
    assert hourly["most_affected"] == [{"client": "big", "requests": 750, "would_deny": 450}]
    assert hourly["clients"] == 1
    assert hourly["clients_total"] == 2
    nothing = await what_if(limit=1000, window_s=3600)
    assert nothing["would_deny"] == 0
    a_second = await what_if(limit=1, window_s=36)  # 100 an hour
    assert a_second["would_deny"] == 450
    assert "more often" in str(a_second["approximation"])
    elsewhere = await what_if(limit=0, window="hour", endpoints=["export"])
    assert elsewhere["requests"] == 0
    both = {"limit": {"limit": 1, "window": "hour", "window_s": 3600}}
    wrong = await served.admin.post("/v1/plans/free/what-if", json=both)
    assert wrong.json()["errors"][0]["field"] == "limit.window_s"

    route = {"method": "GET", "path": "/users/{id}"}
    (await served.admin.put("/v1/endpoints/get-user", json=route)).raise_for_status()
    pro = {
        "limits": [
            {"name": "hourly", "limit": 100, "window": "hour"},
            {"name": "rate", "limit": 1, "window_s": 36, "algorithm": "token_bucket", "burst": 50},
            {"name": "daily", "limit": 10**6, "window": "day", "match": {"endpoints": ["get-user"]}},
            {"name": "per-ip", "scope": "ip", "limit": 1, "window_s": 1},
            {"name": "tried", "limit": 1, "window": "day", "shadow": True},
        ]
    }
    (await served.admin.put("/v1/plans/pro", json=pro)).raise_for_status()
    of_plan = (await served.admin.post("/v1/plans/free/what-if", json={"plan": "pro", "days": 3})).json()
    assert (of_plan["requests"], of_plan["would_deny"], of_plan["would_deny_at_most"]) == (780, 450, 750)
    assert [(one["limit"], one["would_deny"]) for one in of_plan["limits"]] == [
        ("hourly", 450), ("rate", 400), ("daily", 0),
    ]  # fmt: skip
    assert [one["limit"] for one in of_plan["skipped"]] == ["per-ip", "tried"]
    two = [{"limit": 100, "window": "hour"}, {"limit": 1000, "window_s": 3600, "endpoints": ["get-user"]}]
    of_list = (await served.admin.post("/v1/plans/free/what-if", json={"limits": two, "days": 3})).json()
    assert (of_list["would_deny"], of_list["would_deny_at_most"], of_list["clients"]) == (450, 450, 1)
    assert [one["limit"] for one in of_list["limits"]] == ["limits[0]", "limits[1]"]
    for body, field in (
        ({}, "limit"),
        ({"plan": "pro", "limits": two}, "plan"),
        ({"plan": "none"}, "plan"),
        ({"limits": [two[0], {"limit": 1}]}, "limits[1].window_s"),
    ):
        wrong = await served.admin.post("/v1/plans/free/what-if", json=body)
        assert wrong.status_code == 422, wrong.text
        assert wrong.json()["errors"][0]["field"] == field
    assert (await served.admin.get("/v1/usage")).headers.get("x-tidegate-revision") is None


AROUND_NOON, AFTER_NOON = {11: 60, 13: 60}, {13: 60, 23: 60}


@pytest.mark.parametrize(
    "asked", [AROUND_NOON, AFTER_NOON, dict.fromkeys(range(12), 100), dict.fromkeys(range(6), 150)]
)
@pytest.mark.parametrize("window", [5_400, 7_200, "hour", "day", "week", "month"])
async def test_what_if_denies_what_a_node_would_have(
    served: RunningControlPlane, window: int | str, asked: dict[int, int]
) -> None:
    midnight = (this_hour() // 24 - 1) * 24
    noon_us = (midnight + 12) * 3_600_000_000  # of yesterday: there the longer windows begin
    limit: dict[str, Any] = {"name": "tried", "limit": 150, "algorithm": "fixed_window"}
    rule = LimitRule(id=1, **limit)
    if isinstance(window, int):
        limit["window_s"] = window
        rule = replace(rule, window_us=window * 1_000_000)
    else:
        limit |= {"limit": 100, "window": window, "anchor": datetime.fromtimestamp(noon_us // 10**6, UTC).isoformat()}
        rule = replace(rule, limit=100, calendar=window, anchor_us=noon_us)
    (await served.admin.put("/v1/plans/free", json={})).raise_for_status()
    (await served.admin.put("/v1/plans/pro", json={"limits": [limit]})).raise_for_status()
    (await served.admin.put("/v1/clients/acme", json={"plan": "free"})).raise_for_status()
    hours = {midnight + hour: units for hour, units in asked.items()}
    batches = (batch(number, cell(allowed=units), hour=hour) for number, (hour, units) in enumerate(hours.items(), 1))
    await ship(served, *batches)
    state, denied = None, 0
    for hour, units in hours.items():
        for number in range(units):  # evenly over the hour
            verdict = fixed_window(rule, state, 1, hour * 3_600_000_000 + number * 3_600_000_000 // units)
            denied += not verdict.consumed.allowed
            state = verdict.on_consumed.state if verdict.on_consumed else state
    answer = await served.admin.post("/v1/plans/free/what-if", json={"plan": "pro", "days": 3})
    assert answer.raise_for_status().json()["would_deny"] == denied


@pytest.mark.parametrize(
    "asked", [dict.fromkeys(range(6), 120), {0: 240, 1: 60, 2: 120, 5: 240, 6: 240, 20: 30, 23: 720}]
)
@pytest.mark.parametrize(("limit", "window_s"), [(1, 60), (60, 3_600), (1_440, 86_400), (0, 3_600)])
@pytest.mark.parametrize(("algorithm", "burst"), [("token_bucket", 90), ("leaky_bucket", 0)])
async def test_what_if_lets_a_bucket_spend_its_burst_once(
    served: RunningControlPlane, algorithm: Algorithm, burst: int, limit: int, window_s: int, asked: dict[int, int]
) -> None:
    body = {"name": "tried", "limit": limit, "window_s": window_s, "algorithm": algorithm, "burst": burst}
    (await served.admin.put("/v1/plans/free", json={})).raise_for_status()
    (await served.admin.put("/v1/plans/pro", json={"limits": [body]})).raise_for_status()
    (await served.admin.put("/v1/clients/acme", json={"plan": "free"})).raise_for_status()
    hours = {this_hour() - 30 + hour: units for hour, units in asked.items()}
    batches = (batch(number, cell(allowed=units), hour=hour) for number, (hour, units) in enumerate(hours.items(), 1))
    await ship(served, *batches)
    rule = LimitRule(id=1, name="tried", algorithm=algorithm, limit=limit, window_us=window_s * 10**6, burst=burst)
    state, denied = None, 0
    for hour, units in hours.items():
        for number in range(1, units + 1):  # evenly over the hour
            verdict = bucket(rule, state, 1, hour * 3_600_000_000 + number * 3_600_000_000 // units)
            denied += not verdict.consumed.allowed
            state = verdict.on_consumed.state if verdict.on_consumed else state
    answer = await served.admin.post("/v1/plans/free/what-if", json={"plan": "pro", "days": 3})
    # a lower bound: a full bucket takes nothing before the hour's first request
    assert 0 <= denied - answer.raise_for_status().json()["would_deny"] < len(hours)


async def test_many_clients_are_judged_by_one_statement_and_what_takes_too_long_is_refused_in_so_many_words(
    served: RunningControlPlane, a_database: Database
) -> None:
    names = [f"client-{number}" for number in range(24)]
    (await served.admin.put("/v1/plans/free", json={})).raise_for_status()
    lines = [json.dumps({"client": name, "plan": "free"}) for name in names]
    (await served.admin.post("/v1/clients/import", content="\n".join(lines), headers=NDJSON)).raise_for_status()
    cells = [cell(name, allowed=10 * number, denied=number) for number, name in enumerate(names)]
    hours = (this_hour() - 30, this_hour() - 29, this_hour() - 2)
    await ship(
        served,
        *(batch(number, *cells, cell("left", allowed=5), hour=hour) for number, hour in enumerate(hours, 1)),
    )
    tried = [
        CandidateLimit("hourly", 100, 0, None, "hour", ()),
        CandidateLimit("weekly", 300, 0, 7 * 86_400.0, None, ()),
        CandidateLimit("elsewhere", 0, 0, None, "day", ("export",)),
    ]

    async def estimated(most_s: float) -> WhatIfView:
        async with a_database.read() as session:
            return await estimate(session, "free", tried, 3, now(), most_s)

    whole = await estimated(7.5)
    wanted = [11 * number for number in range(24)]
    of_hours = [3 * max(0, one - 100) for one in wanted]
    assert (whole.requests, whole.denied) == (3 * sum(wanted), 3 * sum(range(24)))
    assert whole.limits[0].would_deny == sum(of_hours)
    assert whole.limits[2].would_deny == 0
    assert whole.would_deny < whole.would_deny_at_most
    assert len(whole.most_affected) == whole.clients == 14
    assert whole.clients_total == 24
    assert whole.most_affected[0].client == "client-23"

    blocker = await a_database.listen_connection()
    try:
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE usage_hourly")
            with pytest.raises(InvalidError, match=r"days: 3 days of 24 clients take longer to evaluate than 0\.1 s"):
                await estimated(0.1)
    finally:
        await blocker.close()


async def test_busiest_clients_come_first(served: RunningControlPlane) -> None:
    await ship(served, batch(1, cell("a", 5, 9), cell("b", 7), cell("", 1, key_id="")))
    allowed = (await served.admin.get("/v1/usage/busiest")).json()["items"]
    assert [(item["client"], item["allowed"]) for item in allowed] == [("b", 7), ("a", 5), (None, 1)]
    denied = (await served.admin.get("/v1/usage/busiest", params={"by": "denied", "count": 1})).json()["items"]
    assert [(item["client"], item["denied"]) for item in denied] == [("a", 9)]


async def test_a_watch_of_more_than_a_month_goes_on(served: RunningControlPlane) -> None:
    await ship(served, batch(1, cell("a", 5, 9)))
    with contextlib.closing(AdminReader(served.url, ADMIN_TOKEN, now() - timedelta(days=40))) as reader:
        reading = await asyncio.to_thread(reader.read)
    assert reading.at - reading.since <= timedelta(hours=1)
    assert (reading.by_client["a"].allowed, reading.by_client["a"].denied) == (5, 9)


async def test_the_schema_can_be_taken_back_with_partitions_in_it(postgres_url: str) -> None:
    await asyncio.to_thread(migrate, postgres_url)
    database = Database(postgres_url, connect_timeout_s=5, command_timeout_s=10, pool_size=1)
    assert await Partitions(database).ensure({today()}) == 3
    await database.close()
    await asyncio.to_thread(revert, postgres_url, "base")
    await asyncio.to_thread(migrate, postgres_url)
