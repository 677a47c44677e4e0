"""What nodes counted is taken exactly once, and read as it was counted."""

import asyncio
import time
import zlib
from datetime import UTC, datetime, timedelta

from control_plane.usage.models import LARGEST
from testing.control_plane import RunningControlPlane
from tests.integration.control_plane.usage_batches import FREE, batch, cell, now, ship, this_hour, totals
from tidegate.contract.usage import MAX_CELLS, Denials, LimitName, Place, pack
from tidegate.stack.postgres import PostgresServer

NOTHING = {"allowed": 0, "denied": 0, "shadow_denied": 0, "cost": 0, "denied_cost": 0}


async def test_a_batch_counts_once_however_often_it_comes(served: RunningControlPlane) -> None:
    one = batch(1, cell(allowed=5, denied=2))
    first = await ship(served, one)
    assert first.json() == {"taken": 1, "known": 0, "refused": []}
    again = await ship(served, one, one, batch(2, cell(allowed=1)))
    assert again.json() == {"taken": 1, "known": 2, "refused": []}
    assert await totals(served) == {"allowed": 6, "denied": 2, "shadow_denied": 0, "cost": 6, "denied_cost": 2}


async def test_what_a_backend_shed_is_denied_and_by_no_limit(served: RunningControlPlane) -> None:
    await ship(served, batch(1, cell(allowed=5, denials=(Denials((), (), 3, 6), Denials((), (0,), 2, 2)))))
    assert await totals(served) == {"allowed": 5, "denied": 3, "shadow_denied": 2, "cost": 5, "denied_cost": 6}
    assert (await totals(served, of_limit="hourly"))["denied"] == 0


async def test_copies_that_come_at_the_same_moment_count_once(served: RunningControlPlane) -> None:
    batches = [batch(sequence, cell(f"c{sequence % 3}", allowed=1)) for sequence in range(1, 21)]
    answers = await asyncio.gather(*(ship(served, *batches) for _ in range(6)))
    assert sum(answer.json()["taken"] for answer in answers) == 20
    assert (await totals(served))["allowed"] == 20


async def test_each_life_of_a_node_counts_for_itself_and_a_lost_batch_is_noticed(
    served: RunningControlPlane, postgres_server: PostgresServer, database_name: str
) -> None:
    await ship(served, batch(1), batch(4), batch(1, incarnation="0b"), batch(1, node="us-east-2"))
    assert (await totals(served))["allowed"] == 4
    assert postgres_server.execute("SELECT sum(lost_batches) FROM usage_sources", database=database_name) == "2"


async def test_a_region_speaks_for_itself_only(served: RunningControlPlane) -> None:
    await served.add_region("eu-west")
    forged = await ship(served, batch(), region="us-east", claimed="eu-west")
    assert forged.status_code == 403
    assert await totals(served) == NOTHING
    await ship(served, batch(), region="eu-west")
    answer = (await served.admin.get("/v1/usage", params={"group_by": "region"})).json()
    assert [(item["region"], item["allowed"]) for item in answer["items"]] == [("eu-west", 1)]


async def test_figures_that_are_too_large_to_be_true_stop_nobody(served: RunningControlPlane) -> None:
    await ship(served, batch(1, cell(allowed=3_000_000_000)))
    assert (await totals(served))["allowed"] == 3_000_000_000
    lie = [cell("liar", allowed=2**53)] * 1_100  # more together than 2^63
    for sequence in (2, 3):
        assert (await ship(served, batch(sequence, *lie))).json()["taken"] == 1
    assert (await ship(served, batch(4, cell(allowed=1)))).json()["taken"] == 1
    assert (await totals(served, client="acme"))["allowed"] == 3_000_000_001
    assert (await totals(served))["allowed"] == (await totals(served, client="liar"))["allowed"] == LARGEST
    busiest = await served.admin.get("/v1/usage/busiest")
    assert busiest.status_code == 200, busiest.text


def poison() -> list[tuple[bytes, str]]:
    """Batches that no node makes, and what is wrong with each."""
    return [
        (b"garbage", "is not deflated"),
        (b"", "ends early"),
        (bytes(300_000), "larger than"),
        (pack(batch(1, cell(place=1))), "names the place 1"),
        (pack(batch(1, cell(denials=(Denials((7,), (), 1, 1),)))), "a limit that its place does not have"),
        (pack(batch(1, cell("nul\0"))), "matching regex"),
        (pack(batch(1, cell("x" * 129))), "length"),
        (zlib.compress(zlib.decompress(pack(batch(1, cell("broken")))).replace(b"broken", b"brok\xff\xfe")), "codec"),
        (pack(batch(1, cell(denials=(Denials((), (0,), -1, 1),)))), ">= 0"),
        (pack(batch(1, version=99)), "version 99"),
        (pack(batch(1, hour=this_hour() + 48)), "counts the hour"),
        (pack(batch(1, hour=0)), "counts the hour 1970"),
        (pack(batch(1, *[cell()] * (MAX_CELLS + 1))), "length"),
        (pack(batch(1, node="no node")), "matching regex"),
    ]


async def test_a_batch_that_no_node_makes_is_refused_and_the_others_are_taken(served: RunningControlPlane) -> None:
    bad = poison()
    answer = (await ship(served, *(one for one, _ in bad), batch(1, node="good"))).json()
    assert answer["taken"] == 1
    assert [refused["position"] for refused in answer["refused"]] == list(range(len(bad)))
    for refused, (_, reason) in zip(answer["refused"], bad, strict=True):
        assert reason in refused["reason"]
    assert (await totals(served))["allowed"] == 1


async def test_a_bomb_is_not_inflated(served: RunningControlPlane) -> None:
    answer = (await ship(served, zlib.compress(bytes(200_000_000), level=9)[:250_000])).json()
    assert "inflates to more than" in answer["refused"][0]["reason"]


async def test_the_route_wants_a_region_and_a_shipment(served: RunningControlPlane) -> None:
    assert (await served.admin.post("/internal/v1/usage", content=b"x")).status_code == 401
    headers = {"Authorization": f"Bearer {served.credentials['us-east']}"}
    nested = b"\x81\xa1x" + b"\x91" * 100_000  # {"x": [[[...
    for body in (b"x", nested, b"\x81\xa6region\xa1\xff"):
        unread = await served.admin.post("/internal/v1/usage", content=body, headers=headers)
        assert unread.status_code == 422
        assert unread.json()["errors"][0]["field"] == "body"


async def test_a_large_shipment_is_taken_whole(served: RunningControlPlane) -> None:
    batches = [
        batch(sequence, *(cell(f"client-{sequence}-{number}", allowed=2) for number in range(MAX_CELLS)))
        for sequence in range(1, 11)
    ]
    answer = await ship(served, *batches)
    assert answer.json()["taken"] == 10
    assert (await totals(served))["allowed"] == 40_000


async def test_keys_know_when_they_were_last_used(
    served: RunningControlPlane, postgres_server: PostgresServer, database_name: str
) -> None:
    await served.admin.put("/v1/plans/free", json={})
    await served.admin.put("/v1/clients/acme", json={"plan": "free"})
    made = (await served.admin.post("/v1/clients/acme/keys", json={})).json()
    await ship(served, batch(1, cell(key_id=made["key_id"])))
    recent = "SELECT last_used_at BETWEEN now() - interval '1 hour' AND now() FROM keys"
    assert postgres_server.execute(recent, database=database_name) == "t"
    # a node's clock that is ahead does not say for good that a key was used later
    await ship(served, batch(2, cell(key_id=made["key_id"]), until_ms=10**14))
    assert postgres_server.execute(recent, database=database_name) == "t"


async def test_reads_group_filter_and_page(served: RunningControlPlane) -> None:
    export = Place("free", "export", (LimitName("free", "hourly"),))
    yesterday = this_hour() - 24
    await ship(
        served,
        batch(1, cell("acme", 10, 2), cell("acme", 1, key_id="key_2"), cell("zeta", 3), cell("", 7, key_id="")),
        batch(2, cell("acme", 4, place=1), places=(FREE, export)),
        batch(3, cell("acme", 100), hour=yesterday),
    )

    async def lines(**params: str) -> list[tuple[object, ...]]:
        items, cursor = [], None
        while True:
            page = params | {"limit": "2"} | ({"cursor": cursor} if cursor else {})
            answer = (await served.admin.get("/v1/usage", params=page)).raise_for_status().json()
            items += answer["items"]
            cursor = answer["next_cursor"]
            if cursor is None:
                break
        names = [
            {"key": "key_id"}.get(name, name) for name in params["group_by"].split(",") if name not in {"hour", "day"}
        ]
        return [(*(item[name] for name in names), item["allowed"], item["denied"]) for item in items]

    since = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    assert await lines(group_by="client") == [(None, 7, 0), ("acme", 15, 2), ("zeta", 3, 0)]
    assert await lines(group_by="client,endpoint", client="acme") == [
        ("acme", "export", 4, 0),
        ("acme", "get-user", 11, 2),
    ]
    assert await lines(group_by="key", client="acme") == [("key_1", 14, 2), ("key_2", 1, 0)]
    assert await lines(group_by="plan,limit") == [("_", "per-ip", 21, 0), ("free", "hourly", 25, 2)]
    assert sorted(await lines(group_by="limit")) == [("hourly", 25, 2), ("per-ip", 21, 0)]
    assert await lines(group_by="endpoint", **{"from": since}) == [("export", 4, 0), ("get-user", 121, 2)]
    assert await lines(group_by="hour", **{"from": since}) == [(100, 0), (25, 2)]
    assert len(await lines(group_by="hour,client", **{"from": since})) == 4
    mine = (await served.admin.get("/v1/clients/acme/usage")).json()
    assert mine["detail"] == "There is no client named acme."


async def test_says_up_to_when_a_region_is_complete_and_never_takes_it_back(served: RunningControlPlane) -> None:
    now_ms = int(time.time() * 1000)
    await ship(served, batch(1), complete_until_ms=now_ms)
    await ship(served, complete_until_ms=now_ms - 5_000)
    await ship(served, batch(2))
    answer = (await served.admin.get("/v1/usage")).json()
    until = datetime.fromisoformat(answer["complete_until"]["us-east"])
    assert round(until.timestamp() * 1000) == now_ms
    # nor is it complete in times to come, because a node's clock was ahead
    await ship(served, complete_until_ms=now_ms + 86_400_000)
    answer = (await served.admin.get("/v1/usage")).json()
    assert datetime.fromisoformat(answer["complete_until"]["us-east"]) <= datetime.now(UTC)
    # of a region that is gone nobody waits for more
    assert (await served.admin.delete("/v1/regions/us-east")).status_code == 204
    answer = (await served.admin.get("/v1/usage")).json()
    assert (answer["complete_until"], answer["items"][0]["allowed"]) == ({}, 2)


async def test_a_region_that_never_shipped_is_complete_up_to_no_instant(served: RunningControlPlane) -> None:
    await served.add_region("eu-west")
    await ship(served, batch(1), complete_until_ms=int(time.time() * 1000))
    until = (await served.admin.get("/v1/usage")).json()["complete_until"]
    assert until.keys() == {"eu-west", "us-east"}, "who takes the earliest must not overlook it"
    assert until["eu-west"] is None


WRONG_QUESTIONS = [
    ({"group_by": "colour"}, "group_by"),
    ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "from"),
    ({"from": "1999-01-01T00:00:00Z"}, "from"),
    ({"from": "yesterday"}, "from"),
    ({"cursor": "bm9uZQ=="}, "cursor"),
    ({"client": "a\0b"}, "client"),
    ({"limit": "0"}, "limit"),
]


async def test_names_what_is_wrong_with_a_question(served: RunningControlPlane) -> None:
    for params, field in WRONG_QUESTIONS:
        answer = await served.admin.get("/v1/usage", params=params)
        assert answer.status_code == 422
        assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_refuses_hours_of_clients_that_are_no_longer_kept(served: RunningControlPlane) -> None:
    midnight = now().replace(hour=0, minute=0, second=0, microsecond=0)
    kept, gone, noon = (midnight - timedelta(days=days) for days in (92, 94, 95.5))
    for params, field in [
        ({"client": "acme", "from": kept}, None),
        ({"client": "acme", "from": gone}, "from"),
        ({"key": "key_1", "from": gone, "to": kept}, "from"),
        ({"group_by": "hour,client", "from": gone}, "from"),
        ({"group_by": "hour,plan", "from": noon}, None),
        ({"group_by": "day,client", "from": gone}, None),
        ({"group_by": "client", "from": gone, "to": midnight + timedelta(hours=1)}, None),
        ({"group_by": "client", "from": noon}, "from"),
        ({"group_by": "day,key", "from": noon - timedelta(days=1.5), "to": noon}, "to"),
    ]:
        query = {name: value if isinstance(value, str) else value.isoformat() for name, value in params.items()}
        answer = await served.admin.get("/v1/usage", params=query)
        faults = [error["field"] for error in answer.json().get("errors", [])]
        assert (answer.status_code, faults) == ((200, []) if field is None else (422, [field])), params
        assert field is None or "kept for 93 days" in answer.text
    (await served.admin.put("/v1/plans/free", json={})).raise_for_status()
    (await served.admin.put("/v1/clients/acme", json={"plan": "free"})).raise_for_status()
    for headers in ({}, {"Accept": "text/csv"}):
        answer = await served.admin.get("/v1/clients/acme/usage", params={"from": gone.isoformat()}, headers=headers)
        assert answer.status_code == 422
