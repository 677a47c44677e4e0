"""What lists filter by and sort by, beyond what every named resource does."""

import asyncio
import json
from base64 import urlsafe_b64encode
from typing import Any

import httpx
import pytest

from testing.control_plane import WAIT_S, RunningControlPlane

LATE, LATER = "2100-01-01T00:00:00Z", "2101-01-01T00:00:00Z"
LIMIT = {"limit": 10, "window_s": 1, "mode": "regional"}
KEY = "key_0123456789abcdef"
MADE: dict[str, Any] = {
    "/v1/regions/eu": {},
    "/v1/adaptive-policies/protect": {},
    "/v1/adaptive-policies/soft": {},
    "/v1/backends/users": {},
    "/v1/backends/reports": {},
    "/v1/plans/p": {"limits": [LIMIT | {"name": "a"}, LIMIT | {"name": "b"}]},
    "/v1/plans/q": {"limits": [LIMIT | {"name": "c"}]},
    "/v1/limits/out": LIMIT | {"scope": "ip"},
    "/v1/clients/acme": {"plan": "p"},
    "/v1/clients/acme/overrides/a": {"limit": 5, "expires_at": LATER},
    "/v1/clients/acme/overrides/b": {"limit": 5, "expires_at": LATE},
    "/v1/quotas/p/b": {"shares": "auto"},
    "/v1/blocks/b1": {"ip": "203.0.113.0/24", "reason_class": "abuse", "expires_at": LATER},
    "/v1/blocks/b2": {"ip": "203.0.113.7", "expires_at": LATE},
    "/v1/blocks/b3": {"client": "acme"},
    "/v1/blocks/b4": {"ip": "2001:db8::/32"},
    "/v1/enforcement": {"mode": "shadow"},
    "/v1/enforcement/p/a": {"mode": "enforce"},
    "/v1/usage-webhooks/w1": {"url": "https://example.com/", "plan": "p"},
    "/v1/usage-webhooks/w2": {"url": "https://example.com/", "client": "acme", "enabled": False},
}
LISTS: list[tuple[str, dict[str, str], list[str]]] = [
    ("/v1/adaptive-policies", {"prefix": "so"}, ["soft"]),
    ("/v1/adaptive-policies", {"sort": "-policy"}, ["soft", "protect"]),
    ("/v1/reporters", {"backend": "users"}, ["r1"]),
    ("/v1/reporters", {"sort": "-created_at"}, ["r2", "r1"]),
    ("/v1/clients/acme/overrides", {"sort": "expires_at"}, ["b", "a"]),
    ("/v1/clients/acme/overrides", {"prefix": "a"}, ["a"]),
    ("/v1/quotas", {"plan": "p"}, ["a", "b"]),
    ("/v1/quotas", {"plan": "_"}, ["out"]),
    ("/v1/quotas", {"auto": "true", "plan": "p"}, ["b"]),
    ("/v1/blocks", {"ip": "203.0.113.7"}, ["b1", "b2"]),
    ("/v1/blocks", {"ip": "203.0.113.0/25"}, ["b1"]),
    ("/v1/blocks", {"ip": "2001:db8::7"}, ["b4"]),
    ("/v1/blocks", {"client": "acme"}, ["b3"]),
    ("/v1/blocks", {"key_id": KEY}, []),
    ("/v1/blocks", {"reason_class": "abuse"}, ["b1"]),
    ("/v1/blocks", {"sort": "-expires_at", "ip": "203.0.113.7"}, ["b1", "b2"]),
    ("/v1/blocks", {"sort": "created_at", "prefix": "b"}, ["b1", "b2", "b3", "b4"]),
    ("/v1/enforcement", {"mode": "enforce"}, ["p/a"]),
    ("/v1/enforcement", {"sort": "-set_at"}, ["p/a", "*"]),
    ("/v1/usage-webhooks", {"plan": "p"}, ["w1"]),
    ("/v1/usage-webhooks", {"enabled": "false", "client": "acme"}, ["w2"]),
    ("/v1/usage-webhooks/w1/deliveries", {"delivered": "false", "sort": "-created_at"}, []),
    ("/v1/rollouts", {"state": "done"}, []),
    ("/v1/revisions", {"author": "nobody"}, []),
    ("/v1/revisions", {"since": LATE}, []),
    ("/v1/revisions", {"until": LATE, "limit": "1"}, ["18"]),
    ("/v1/nodes", {"region": "eu"}, []),
]
NAMES = ("limit_name", "limit", "policy", "reporter", "block", "target", "webhook", "alert", "revision", "plan")


def names(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [str(next(item[name] for name in NAMES if name in item)) for item in answer.json()["items"]]


async def test_lists_filter_and_sort(api: httpx.AsyncClient) -> None:
    for path, body in MADE.items():
        made = await api.put(path, json=body)
        assert made.is_success, (path, made.text)
    for reporter, backend in (("r1", "users"), ("r2", "reports")):
        (await api.post("/v1/reporters", json={"reporter": reporter, "backends": [backend]})).raise_for_status()
    newest = str((await api.get("/v1/revisions", params={"limit": "1"})).json()["items"][0]["revision"])
    for path, query, wanted in LISTS:
        expected = [newest] if path == "/v1/revisions" and wanted else wanted
        assert names(await api.get(path, params=query)) == expected, (path, query)


async def walked(api: httpx.AsyncClient, path: str, **query: str) -> list[str]:
    """All pages of a list."""
    found: list[str] = []
    while True:
        page = await api.get(path, params=query)
        found += names(page)
        if page.json()["next_cursor"] is None:
            return found
        query["cursor"] = page.json()["next_cursor"]


async def test_pages_of_a_sorted_list_follow_each_other(api: httpx.AsyncClient) -> None:
    for number in range(5):
        body = {"ip": f"203.0.113.{number}", "expires_at": LATE if number % 2 else LATER}
        (await api.put(f"/v1/blocks/b{number}", json=body)).raise_for_status()
    assert await walked(api, "/v1/blocks", sort="expires_at", limit="2") == ["b1", "b3", "b0", "b2", "b4"]
    for name, priority in (("a", 3), ("b", 1), ("c", 2), ("d", 2)):
        (await api.put(f"/v1/plans/{name}", json={"priority": priority})).raise_for_status()
    assert await walked(api, "/v1/plans", sort="priority", limit="1") == ["b", "c", "d", "a"]
    assert await walked(api, "/v1/plans", sort="-priority", limit="1") == ["a", "d", "c", "b"]
    assert await walked(api, "/v1/plans", sort="-plan", limit="1") == ["d", "c", "b", "a"]
    assert await walked(api, "/v1/plans", prefix="c", limit="1") == ["c"]


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("/v1/blocks", {"ip": "203.0.113.7/24"}, "ip"),
        ("/v1/blocks", {"sort": "reason"}, "sort"),
        ("/v1/nodes", {"connected": "perhaps"}, "connected"),
        ("/v1/rollouts", {"state": "lost"}, "state"),
        ("/v1/revisions", {"since": "yesterday"}, "since"),
        ("/v1/regions", {"prefix": "eu\0"}, "prefix"),
        ("/v1/keys", {"prefix": "tg_\0"}, "prefix"),
        ("/v1/blocks", {"limit": "1", "address": "203.0.113.7"}, "address"),
    ],
)
async def test_a_wrong_filter_is_named(api: httpx.AsyncClient, path: str, query: dict[str, str], field: str) -> None:
    answer = await api.get(path, params=query)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field)


async def test_a_cursor_that_no_list_gave_out_is_named(api: httpx.AsyncClient) -> None:
    positions: list[tuple[str, dict[str, str], list[Any] | None]] = [
        ("/v1/clients", {"sort": "created_at"}, ["created_at", "0001-01-01T00:00:00+23:00", "x"]),
        ("/v1/clients", {"sort": "created_at"}, ["created_at", "9999-12-31T23:59:59-23:00", "x"]),
        ("/v1/clients", {"sort": "created_at"}, ["created_at", "2020-01-01T00:00:00Z", "\ud800"]),
        ("/v1/clients", {"sort": "plan"}, ["plan", "\0", "x"]),
        ("/v1/plans", {"sort": "priority"}, ["priority", True, "x"]),
        ("/v1/plans", {"sort": "priority"}, ["plan", "a", "x"]),
        ("/v1/plans", {"sort": "priority"}, None),
        ("/v1/usage", {}, ["0001-01-01T00:00:00+23:00"]),
        ("/v1/usage", {"group_by": "client"}, ["\ud800"]),
    ]
    for path, query, position in positions:
        text = "by-name" if position is None else json.dumps(position)
        cursor = urlsafe_b64encode(text.encode()).decode()
        answer = await api.get(path, params={**query, "cursor": cursor})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "cursor"), position


async def test_nodes_with_an_open_stream_or_none(served: RunningControlPlane) -> None:
    async with served.node("here").following():
        async with served.node("gone").following():
            await served.until_nodes(lambda found: len(found) == 2)

        async def listed(connected: str) -> list[str]:
            answer = await served.admin.get("/v1/nodes", params={"connected": connected, "region": "us-east"})
            return [node["node"] for node in answer.json()["items"]]

        async with asyncio.timeout(WAIT_S):  # beside other work a heartbeat may be late, also one of "here"
            while (await listed("true"), await listed("false")) != (["here"], ["gone"]):
                await asyncio.sleep(0.02)


async def test_what_a_query_says_once_it_does_not_say_twice(api: httpx.AsyncClient) -> None:
    for path, twice in (
        ("/v1/usage?group_by=client&group_by=day", "group_by"),
        ("/v1/usage?client=a&client=b", "client"),
        ("/v1/clients?limit=1&limit=2", "limit"),
        ("/v1/clients?sort=plan&sort=client", "sort"),
    ):
        answer = await api.get(path)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, twice), path
    assert (await api.get("/v1/config?sections=plans&sections=limits")).json().keys() == {"version", "plans", "limits"}
