"""Roles that hold for some clients only: no admin route lets them past, nor do the console's pages."""

from collections.abc import Callable

import httpx
import pytest

from control_plane.app import create_app
from control_plane.settings import Settings
from tests.integration.control_plane.test_access import bearer
from tests.integration.control_plane.test_console import opened

INSIDE, OUTSIDE = "acme-1", "globex-1"
OF_A_CLIENT = "/v1/clients/"
OF_A_PLAN = ("/v1/plans/", "/v1/quotas/", "/v1/enforcement/")
ANYBODYS = {("GET", "/v1/clients"), ("POST", "/v1/console/links")}
"""What a scoped role may ask whatever it is about: a list that holds only what it covers, and a session like it."""


async def scoped(api: httpx.AsyncClient, role: str = "operator", **scope: list[str]) -> dict[str, str]:
    """The header of a new token whose role is for some clients only."""
    name = "-".join([role, *(f"{name}.{'.'.join(values)}" for name, values in scope.items())]).lower()
    answer = await api.post("/v1/tokens", json={"name": name, "role": role, **scope})
    assert answer.status_code == 201, answer.text
    return bearer(answer.json()["secret"])


@pytest.fixture
async def clients(api: httpx.AsyncClient) -> None:
    for plan in ("free", "pro"):
        body = {"limits": [{"name": "hourly", "limit": 9, "window_s": 3600}]}
        assert (await api.put(f"/v1/plans/{plan}", json=body)).status_code == 201
    for client, plan in ((INSIDE, "free"), ("acme-2", "pro"), (OUTSIDE, "pro"), ("globex-2", "free")):
        assert (await api.put(f"/v1/clients/{client}", json={"plan": plan})).status_code == 201


def routes(make_settings: Callable[..., Settings]) -> list[tuple[str, str]]:
    """Every admin route as documented, with its templates."""
    paths = create_app(make_settings()).openapi()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() if path.startswith("/v1/") for method in methods]


def filled(path: str, client: str, plan: str) -> str:
    """A route's path about this client or plan."""
    for name, value in {
        "client": client, "plan": plan, "limit": "hourly", "key_id": "key_0123456789abcdef", "token_id": "tok_0123",
        "number": "1", "revision": "1", "id": "1",
    }.items():  # fmt: skip
        path = path.replace(f"{{{name}}}", value)
    return "/".join("x1" if part.startswith("{") else part for part in path.split("/"))


async def status(api: httpx.AsyncClient, method: str, path: str, headers: dict[str, str]) -> int:
    # an unknown member: whoever may write gets no further than 422
    body = {"unknown": 1} if method in {"POST", "PUT"} else None
    return (await api.request(method, path, json=body, headers=headers)).status_code


async def test_no_route_answers_about_what_is_outside(
    api: httpx.AsyncClient, clients: None, make_settings: Callable[..., Settings]
) -> None:
    """Every admin route, for every kind of scope, about a client and a plan outside of it."""
    kinds = (
        (await scoped(api, client_prefixes=["acme-"]), OUTSIDE, "free"),
        (await scoped(api, plans=["free"]), OUTSIDE, "pro"),
        (await scoped(api, plans=["free"], client_prefixes=["acme-"]), "globex-2", "free"),
        (await scoped(api, plans=["free"], client_prefixes=["globex-", "acme-"]), "acme-2", "pro"),
    )
    refused = 0
    for method, path in routes(make_settings):
        if (method, path) in ANYBODYS:
            continue
        for headers, client, plan in kinds:
            queries = (f"?client={client}", f"?client={INSIDE}&client={client}", f"?prefix=acme-&plan={plan}")
            for query in ("", *(queries if method == "GET" and client == OUTSIDE and plan == "free" else ())):
                assert await status(api, method, filled(path, client, plan) + query, headers) == 403, (path, query)
                refused += 1
    assert refused > 450


async def test_within_it_a_role_may_do_what_the_role_may(
    api: httpx.AsyncClient, clients: None, make_settings: Callable[..., Settings]
) -> None:
    named, planned = await scoped(api, client_prefixes=["acme-"]), await scoped(api, plans=["free"])
    viewer = await scoped(api, "viewer", client_prefixes=["acme-"])
    about_clients = [route for route in routes(make_settings) if route[1].startswith(OF_A_CLIENT + "{")]
    assert len(about_clients) == 15
    for method, path in about_clients:
        at = filled(path, INSIDE, "free")
        if method == "DELETE" and at.endswith(INSIDE):
            continue
        for headers in (named, planned):
            assert await status(api, method, at, headers) in {200, 404, 422}, (method, path)
        assert (await status(api, method, at, viewer) == 403) == (method != "GET"), (method, path)
    about_plans = [route for route in routes(make_settings) if "{plan}" in route[1]]
    assert {path[: path.index("{")] for _, path in about_plans} == set(OF_A_PLAN)
    for method, path in about_plans:
        at = filled(path, INSIDE, "free")
        assert await status(api, method, at, named) == 403, (method, path)
        if method != "DELETE":
            assert await status(api, method, at, planned) in {200, 404, 422}, (method, path)
    for path in ("/v1/usage", "/v1/denials"):
        assert (await api.get(path, params={"client": INSIDE}, headers=viewer)).status_code == 200
    assert (await api.delete(f"/v1/clients/{INSIDE}", headers=named)).status_code == 204


async def test_a_list_holds_what_a_scope_covers(api: httpx.AsyncClient, clients: None) -> None:
    async def listed(headers: dict[str, str], **query: str) -> list[str]:
        answer = await api.get("/v1/clients", params=query, headers=headers)
        assert answer.status_code == 200
        return [one["client"] for one in answer.json()["items"]]

    named, planned = await scoped(api, client_prefixes=["acme-"]), await scoped(api, plans=["free"])
    assert await listed(named) == [INSIDE, "acme-2"]
    assert await listed(planned) == [INSIDE, "globex-2"]
    assert await listed(await scoped(api, plans=["free"], client_prefixes=["acme-"])) == [INSIDE]
    assert await listed(named, prefix="globex-") == []
    assert await listed(planned, plan="pro") == []
    assert len(await listed({})) == 4


async def test_no_client_leaves_or_enters_a_scope_by_a_write(api: httpx.AsyncClient, clients: None) -> None:
    """Nor is it told whether a client outside exists."""
    planned, named = await scoped(api, plans=["free"]), await scoped(api, client_prefixes=["acme-"])

    async def put(client: str, plan: str, headers: dict[str, str]) -> int:
        return (await api.put(f"/v1/clients/{client}", json={"plan": plan}, headers=headers)).status_code

    async def post(client: str, plan: str, headers: dict[str, str]) -> int:
        body = {"client": client, "plan": plan}
        return (await api.post("/v1/clients", json=body, headers=headers)).status_code

    assert await put("new", "free", planned) == 201
    assert await put("new", "pro", planned) == 403
    assert await put(OUTSIDE, "free", planned) == 403
    assert await post(OUTSIDE, "free", planned) == 403
    assert await post("other", "pro", planned) == 403
    assert await post("other", "free", planned) == 201
    assert await post("globex-3", "free", named) == 403
    assert await post("acme-3", "pro", named) == 201
    texts = {(await api.get(f"/v1/clients/{name}", headers=planned)).json()["detail"] for name in (OUTSIDE, "nobody")}
    assert texts == {"You may see and change clients on the plan free; this is about something else."}
    # a key that is inside a JSON member twice is read by the guard as by the route: the last one counts
    twice = b'{"plan": "free", "plan": "pro"}'
    headers = {**planned, "Content-Type": "application/json"}
    assert (await api.put("/v1/clients/new", content=twice, headers=headers)).status_code == 403


async def test_a_what_if_asks_about_no_plan_outside(api: httpx.AsyncClient, clients: None) -> None:
    async def ask(headers: dict[str, str], **body: object) -> int:
        return (await api.post("/v1/plans/free/what-if", json=body, headers=headers)).status_code

    one, both = await scoped(api, "viewer", plans=["free"]), await scoped(api, "viewer", plans=["free", "pro"])
    assert await ask(one, plan="free") == await ask(both, plan="pro") == 200
    assert await ask(one, plan="pro") == await ask(one, plan="nobodys") == 403
    assert await ask(one, plan=None, limit={"limit": 5, "window_s": 60}) == 200
    assert await ask(one, plan=["pro"]) == 422


async def test_only_viewers_and_operators_are_scoped(api: httpx.AsyncClient) -> None:
    for role in ("admin", "gateway"):
        answer = await api.post("/v1/tokens", json={"name": "x", "role": role, "plans": ["free"]})
        assert answer.status_code == 422
        assert "viewer and operator" in answer.text


async def test_a_token_shows_its_scope(api: httpx.AsyncClient) -> None:
    made = await api.post("/v1/tokens", json={"name": "x", "role": "operator", "client_prefixes": ["acme-"]})
    shown = (await api.get(f"/v1/tokens/{made.json()['token_id']}")).json()
    for one in (made.json(), shown):
        assert (one["role"], one["plans"], one["client_prefixes"]) == ("operator", [], ["acme-"])
    listed = (await api.get("/v1/tokens", params={"role": "operator"})).json()["items"]
    assert [one["token_id"] for one in listed] == [shown["token_id"]]
    entry = (await api.get("/v1/audit", params={"resource": "token", "name": shown["token_id"]})).json()["items"][0]
    assert entry["after"]["client_prefixes"] == ["acme-"]


async def test_a_token_is_for_plans_that_exist(api: httpx.AsyncClient, clients: None) -> None:
    body = {"name": "x", "role": "viewer", "plans": ["free", "nope", "pro", "never"]}
    refused = await api.post("/v1/tokens", json=body)
    faults = [(fault["field"], fault["message"]) for fault in refused.json()["errors"]]
    assert refused.status_code == 422
    assert faults == [("plans[1]", "there is no plan named nope"), ("plans[3]", "there is no plan named never")]
    assert (await api.post("/v1/tokens", json=body | {"plans": ["free"]})).status_code == 201


async def test_the_console_issues_a_scoped_token(api: httpx.AsyncClient, clients: None) -> None:
    page = await opened(api)
    wanted = {"name": "x", "role": "operator", "plans": "free, pro", "client_prefixes": "acme-", "minutes": "60"}
    done = await page.confirm("add-token", **wanted)
    assert done.status_code == 200
    (token,) = [one for one in (await api.get("/v1/tokens")).json()["items"] if one["name"] == "x"]
    assert (token["plans"], token["client_prefixes"]) == (["free", "pro"], ["acme-"])
    listed = (await page.get("/access")).text
    assert "on free, pro" in listed
    assert "for acme-*" in listed


async def test_the_console_shows_a_scoped_visitor_no_more(api: httpx.AsyncClient, clients: None) -> None:
    secret = (await scoped(api, client_prefixes=["acme-"]))["Authorization"].removeprefix("Bearer ")
    page = await opened(api, secret)
    found = await page.get("/clients")
    assert found.status_code == 200
    assert "acme-1" in found.text
    assert "globex" not in found.text
    assert (await page.get("/client/acme-1")).status_code == 200
    assert (await page.get("/")).headers["location"] == "/console/clients"
    for path in ("/client/globex-1", "/plans", "/regions", "/changes", "/access", "/backends"):
        assert (await page.get(path)).status_code == 403, path
    async with api.stream("GET", "/console/events?of=now-status", headers={"Cookie": page.cookie}) as events:
        assert events.status_code == 403


async def test_a_body_that_is_nested_too_deeply_is_refused(api: httpx.AsyncClient, clients: None) -> None:
    headers = await scoped(api, client_prefixes=["acme-"]) | {"Content-Type": "application/json"}
    body = b'{"plan":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
    answer = await api.put(f"/v1/clients/{INSIDE}", content=body, headers=headers)
    assert answer.status_code in {400, 422}, answer.text
    unread = await api.request("DELETE", f"/v1/clients/{INSIDE}", content=body, headers=headers)
    assert unread.status_code == 204, unread.text
