"""Imports: line by line, wrong lines by number, the same lines again change nothing."""

import json
from typing import Any

import httpx
import pytest

from tidegate.contract.credentials import secret_sha256

NDJSON = {"Content-Type": "application/x-ndjson"}
SECRET = "existing-0123456789-abcdefgh"


@pytest.fixture(autouse=True)
async def _plan(api: httpx.AsyncClient) -> None:
    (
        await api.put("/v1/plans/free", json={"limits": [{"name": "hourly", "limit": 5, "window_s": 3600}]})
    ).raise_for_status()


async def imported(api: httpx.AsyncClient, kind: str, *lines: Any) -> dict[str, Any]:
    content = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    answer = await api.post(f"/v1/{kind}/import", content=content.encode(), headers=NDJSON)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_clients_are_made_changed_and_left(api: httpx.AsyncClient) -> None:
    lines = [{"client": f"c{number}", "plan": "free"} for number in range(2_500)]
    made = await imported(api, "clients", *lines)
    assert (made["lines"], made["made"], made["errors"]) == (2_500, 2_500, [])
    revision = made["revision"]
    again = await imported(api, "clients", *lines)
    assert (again["unchanged"], again["revision"]) == (2_500, revision)
    await api.put("/v1/clients/c1/overrides/hourly", json={"limit": 9})
    changed = await imported(api, "clients", {"client": "c1", "plan": "free", "external_id": "x"})
    assert (changed["changed"], changed["made"]) == (1, 0)
    assert (await api.get("/v1/clients/c1")).json()["external_id"] == "x"
    assert (await api.get("/v1/clients/c1/overrides/hourly")).json()["limit"] == 9
    (entry,) = (await api.get("/v1/audit", params={"name": "c2"})).json()["items"]
    assert entry["after"]["plan"] == "free"


async def test_wrong_lines_are_refused_by_number_and_the_others_taken(api: httpx.AsyncClient) -> None:
    result = await imported(
        api,
        "clients",
        {"client": "a", "plan": "free"},
        "{not json",
        {"client": "b", "plan": "nope"},
        "",
        {"client": "c", "plan": "free", "colour": "red"},
        {"client": "d", "plan": "free"},
    )
    assert (result["lines"], result["made"], result["refused"]) == (5, 2, 3)
    assert [(error["line"], error["field"]) for error in result["errors"]] == [(2, "body"), (5, "colour"), (3, "plan")]
    assert [item["client"] for item in (await api.get("/v1/clients")).json()["items"]] == ["a", "d"]


async def test_a_wrong_line_takes_the_place_of_no_right_one(api: httpx.AsyncClient) -> None:
    wrong = {"client": "a", "plan": "nope"}
    result = await imported(api, "clients", {"client": "a", "plan": "free"}, wrong)
    assert (result["lines"], result["made"], result["unchanged"], result["refused"]) == (2, 1, 0, 1)
    assert [error["line"] for error in result["errors"]] == [2]
    assert (await api.get("/v1/clients/a")).status_code == 200


async def test_keys_are_taken_in_by_secret_or_hash(api: httpx.AsyncClient) -> None:
    for client in ("a", "b"):
        await api.put(f"/v1/clients/{client}", json={"plan": "free"})
    lines = [
        {"client": "a", "secret": SECRET, "name": "old"},
        {"client": "a", "secret_sha256": secret_sha256("another")},
    ]
    made = await imported(api, "keys", *lines)
    assert (made["made"], made["refused"]) == (2, 0)
    assert (await imported(api, "keys", *lines))["unchanged"] == 2
    shown = (await api.get("/v1/clients/a/keys")).json()["items"]
    assert {(item["name"], item["prefix"]) for item in shown} == {("old", SECRET[:8]), (None, None)}
    wrong = await imported(
        api,
        "keys",
        {"client": "b", "secret": SECRET},
        {"client": "nobody", "secret_sha256": "0" * 64},
        {"client": "a"},
        {"client": "a", "secret": "a" * 40},
    )
    assert wrong["refused"] == 4
    assert [(error["line"], error["field"]) for error in wrong["errors"]] == [
        (3, "line"),
        (1, "secret"),
        (2, "client"),
        (4, "secret"),
    ]
    everything = json.dumps(wrong) + (await api.get("/v1/audit", params={"limit": 1000})).text
    assert SECRET not in everything
    assert secret_sha256(SECRET) not in everything


async def test_bounds(api: httpx.AsyncClient) -> None:
    long = await api.post("/v1/clients/import", content=b"x" * 70_000, headers=NDJSON)
    assert (long.status_code, long.json()["errors"][0]["field"]) == (422, "line 1")
    replay = await api.post("/v1/clients/import", content=b"", headers=NDJSON | {"Idempotency-Key": "a"})
    assert (replay.status_code, replay.json()["errors"][0]["field"]) == (422, "Idempotency-Key")
