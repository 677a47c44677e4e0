"""Limits: defaults, what is refused, when counts start afresh, and how units are shared out over regions."""

from typing import Any

import httpx

HOURLY = {"name": "hourly", "limit": 1000, "window_s": 3600}


async def document(api: httpx.AsyncClient, kind: str, id: str) -> dict[str, Any]:
    """The newest published document, from the history."""
    for revision in (await api.get("/v1/revisions")).json()["items"]:
        diff = (await api.get(f"/v1/revisions/{revision['revision']}/diff")).json()
        for change in diff["changes"]:
            if (change["kind"], change["id"]) == (kind, id):
                found: dict[str, Any] = change["after"]
                return found
    raise AssertionError(f"{kind} {id} was never published")


async def test_defaults(api: httpx.AsyncClient) -> None:
    shown = (await api.post("/v1/limits", json={"name": "a", "limit": 1, "window_s": 0.5})).json()
    assert shown == {
        "name": "a",
        "scope": "client",
        "algorithm": "sliding_window",
        "limit": 1,
        "window_s": 0.5,
        "window": None,
        "anchor": None,
        "burst": None,
        "match": {"endpoints": [], "methods": [], "attributes": {}},
        "mode": "shared",
        "on_store_failure": "local",
        "shadow": False,
        "priority": 0,
        "adaptive": None,
        "headline": False,
        "visible": None,
    }
    calendar = (await api.put("/v1/limits/b", json={"limit": 1, "window": "month", "mode": "strict"})).json()
    assert calendar["algorithm"] == "fixed_window"
    assert calendar["on_store_failure"] == "closed"
    anchored = {"limit": 1, "window": "day", "anchor": "2026-01-01T06:00:00+02:00"}
    assert (await api.put("/v1/limits/c", json=anchored)).json()["anchor"] == "2026-01-01T04:00:00Z"
    assert (await document(api, "limit", "c"))["anchor_us"] == 1_767_240_000_000_000


FAULTS = [
    ({"limit": 1}, "window_s"),
    ({"limit": 1, "window_s": 1, "window": "day"}, "window_s"),
    ({"limit": 1, "window_s": 1, "anchor": "2026-01-01T00:00:00Z"}, "anchor"),
    ({"limit": 1, "window": "day", "anchor": "yesterday"}, "anchor"),
    ({"limit": 1, "window": "day", "anchor": 5}, "anchor"),
    ({"limit": 1, "window": "day", "anchor": "9999-12-31T23:59:59-01:00"}, "anchor"),
    ({"limit": 1, "window": "day", "anchor": "1970-01-01T00:00:00+14:00"}, "anchor"),
    ({"limit": 1, "window": "day", "anchor": "2199-12-31T23:59:59-01:00"}, "anchor"),
    ({"limit": 1, "window": "day", "algorithm": "sliding_window"}, "window"),
    ({"limit": 1, "window_s": 0}, "window_s"),
    ({"limit": 1, "window_s": 1e300}, "window_s"),
    ({"limit": 1, "window_s": 0.0000001}, "window_s"),
    ({"limit": -1, "window_s": 1}, "limit"),
    ({"limit": 10**13, "window_s": 1}, "limit"),
    ({"limit": 1.5, "window_s": 1}, "limit"),
    ({"limit": 1, "window_s": 1, "burst": 5}, "burst"),
    ({"limit": 1, "window_s": 1, "burst": 0, "algorithm": "token_bucket"}, "burst"),
    ({"limit": 5000, "window_s": 1, "algorithm": "sliding_log"}, "limit"),
    ({"limit": 1, "window_s": 1, "scope": "planet"}, "scope"),
    ({"limit": 1, "window_s": 1, "scope": "client+client"}, "scope"),
    ({"limit": 1, "window_s": 1, "mode": "loose"}, "mode"),
    ({"limit": 1, "window_s": 1, "mode": "strict", "overdraft_percent": 5}, "overdraft_percent"),
    ({"limit": 1, "window_s": 1, "match": {"colour": "red"}}, "match.colour"),
    ({"limit": 1, "window_s": 1, "match": {"methods": ["get"]}}, "match.methods[0]"),
    ({"limit": 1, "window_s": 1, "match": {"methods": ["GET", "GET"]}}, "match.methods"),
    ({"limit": 1, "window_s": 1, "match": {"attributes": {"tier": "a\u0000"}}}, "match.attributes.tier"),
]


async def test_every_fault_names_its_field(api: httpx.AsyncClient) -> None:
    for body, field in FAULTS:
        alone = await api.post("/v1/limits", json={"name": "x", **body})
        assert alone.status_code == 422, (body, alone.text)
        assert field in [error["field"] for error in alone.json()["errors"]], body
        in_plan = await api.post("/v1/plans", json={"plan": "p", "limits": [HOURLY, {"name": "x", **body}]})
        assert f"limits[1].{field}" in [error["field"] for error in in_plan.json()["errors"]], body


async def test_names_and_headlines_are_single_within_a_plan(api: httpx.AsyncClient) -> None:
    twice = await api.post("/v1/plans", json={"plan": "p", "limits": [HOURLY, HOURLY]})
    assert [error["field"] for error in twice.json()["errors"]] == ["limits[1].name"]
    marked = [{**HOURLY, "name": name, "headline": True} for name in ("a", "b")]
    two = await api.post("/v1/plans", json={"plan": "p", "limits": marked})
    assert [error["field"] for error in two.json()["errors"]] == ["limits[1].headline"]
    await api.put("/v1/plans/p", json={"limits": marked[:1]})
    second = await api.post("/v1/plans/p/limits", json=marked[1])
    assert [error["field"] for error in second.json()["errors"]] == ["headline"]


async def test_counts_are_kept_unless_they_do_not_fit_any_more(api: httpx.AsyncClient) -> None:
    async def rule_id(**changes: Any) -> int:
        response = await api.put("/v1/plans/free", json={"limits": [HOURLY | changes]})
        response.raise_for_status()
        id: int = (await document(api, "plan", "free"))["limits"][0]["id"]
        return id

    first = await rule_id()
    assert await rule_id(limit=2000) == first
    assert await rule_id(limit=2000, priority=3, shadow=True, match={"methods": ["GET"]}) == first
    assert await rule_id(mode="regional") == first
    afresh: tuple[dict[str, Any], ...] = (
        {"window_s": 60},
        {"window_s": 60, "algorithm": "token_bucket"},
        {"window_s": 60, "algorithm": "token_bucket", "scope": "ip"},
        {"window_s": None, "window": "hour"},
        {"window_s": None, "window": "hour", "anchor": "2026-01-01T00:30:00Z"},
        {"mode": "shared"},
        {"mode": "strict"},
        {"mode": "regional"},
    )
    ids = [first] + [await rule_id(**changes) for changes in afresh]
    assert len(set(ids)) == len(ids)
    await api.delete("/v1/plans/free")
    assert await rule_id() not in ids


async def test_a_plan_keeps_the_order_of_its_limits(api: httpx.AsyncClient) -> None:
    limits = [{**HOURLY, "name": name} for name in ("z", "a", "m")]
    await api.put("/v1/plans/p", json={"limits": limits})
    await api.post("/v1/plans/p/limits", json={**HOURLY, "name": "b"})
    await api.put("/v1/plans/p/limits/a", json={"limit": 5, "window_s": 1})
    shown = (await api.get("/v1/plans/p")).json()["limits"]
    assert [(limit["name"], limit["limit"]) for limit in shown] == [("z", 1000), ("a", 5), ("m", 1000), ("b", 1000)]
    await api.put("/v1/plans/p", json={"limits": [limits[2], limits[0]]})
    published = (await document(api, "plan", "p"))["limits"]
    assert [limit["name"] for limit in published] == ["m", "z"]


async def test_regional_and_strict_limits_are_shared_out_and_again_when_regions_come_and_go(
    api: httpx.AsyncClient,
) -> None:
    await api.put("/v1/plans/p", json={"limits": [HOURLY | {"mode": "regional"}, HOURLY | {"name": "all"}]})
    await api.put("/v1/limits/world", json={"scope": "global", "limit": 7, "window_s": 1, "mode": "strict"})
    assert "shares" not in (await document(api, "plan", "p"))["limits"][0]
    for region in ("us-east", "eu-west", "ap-south"):
        await api.put(f"/v1/regions/{region}", json={})
    plan = await document(api, "plan", "p")
    assert plan["limits"][0]["shares"] == {"ap-south": 334, "eu-west": 333, "us-east": 333}
    assert "shares" not in plan["limits"][1]
    assert (await document(api, "limit", "world"))["shares"] == {"ap-south": 3, "eu-west": 2, "us-east": 2}
    await api.delete("/v1/regions/ap-south")
    assert (await document(api, "limit", "world"))["shares"] == {"eu-west": 4, "us-east": 3}
    await api.put("/v1/plans/p/limits/hourly", json={"limit": 11, "window_s": 3600, "mode": "regional"})
    assert (await document(api, "plan", "p"))["limits"][0]["shares"] == {"eu-west": 6, "us-east": 5}


async def test_explicit_quotas(api: httpx.AsyncClient) -> None:
    await api.put("/v1/plans/free", json={"limits": [HOURLY | {"mode": "regional"}]})
    await api.put("/v1/limits/world", json={"scope": "global", "limit": 10, "window_s": 1})
    for region in ("us-east", "eu-west"):
        await api.put(f"/v1/regions/{region}", json={})
    path = "/v1/quotas/free/hourly"
    assert (await api.get(path)).json() == {
        "plan": "free",
        "limit": "hourly",
        "mode": "regional",
        "shares": "equal",
        "units": {"eu-west": 500, "us-east": 500},
        "in_force": {"eu-west": 500, "us-east": 500},
        "move": None,
        "balance": None,
    }
    put = await api.put(path, json={"shares": {"us-east": 0.7, "eu-west": 0.3}})
    assert put.json()["units"] == {"eu-west": 300, "us-east": 700}
    assert (await document(api, "plan", "free"))["limits"][0]["shares"] == {"eu-west": 300, "us-east": 700}
    assert (await api.put("/v1/quotas/_/world", json={"shares": {"us-east": 1}})).status_code == 200
    assert (await document(api, "limit", "world"))["shares"] == {"eu-west": 0, "us-east": 10}
    listed = (await api.get("/v1/quotas")).json()["items"]
    assert [(quota["plan"], quota["limit"]) for quota in listed] == [(None, "world"), ("free", "hourly")]

    # a region that a quota names cannot go; a limit's change keeps its quota
    assert (await api.delete("/v1/regions/us-east")).status_code == 409
    await api.put("/v1/plans/free", json={"limits": [HOURLY | {"mode": "regional", "limit": 10}]})
    assert (await api.get(path)).json()["units"] == {"eu-west": 3, "us-east": 7}

    stale = await api.put(path, json={"shares": "auto"}, headers={"If-Match": put.headers["etag"]})
    assert stale.status_code == 412
    assert (await api.put(path, json={"shares": "auto"})).json()["shares"] == "auto"
    assert (await api.delete(path)).status_code == 204
    assert (await api.get(path)).json()["shares"] == "equal"


WRONG_QUOTAS = [
    ({"us-east": 0.5}, "shares"),
    ({"us-east": 0.5, "eu-west": 0.6}, "shares"),
    ({"us-east": 0.5, "mars": 0.5}, "shares.mars"),
    ({"us-east": 1.5, "eu-west": -0.5}, "shares"),
    ({}, "shares"),
    ("manual", "shares"),
]


async def test_wrong_quotas_are_named(api: httpx.AsyncClient) -> None:
    await api.put("/v1/plans/free", json={"limits": [HOURLY]})
    for region in ("us-east", "eu-west"):
        await api.put(f"/v1/regions/{region}", json={})
    for shares, field in WRONG_QUOTAS:
        refused = await api.put("/v1/quotas/free/hourly", json={"shares": shares})
        assert refused.status_code == 422, shares
        assert all(error["field"].startswith(field) for error in refused.json()["errors"]), (shares, refused.text)
    assert (await api.get("/v1/quotas/free/nope")).status_code == 404
