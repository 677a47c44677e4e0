"""The console over HTTP: who is let in, what a page may do, and what nobody may do by it."""

import asyncio
import html
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime

import httpx
import pytest

from control_plane.console.actions import ACTIONS
from control_plane.console.feed import MAX_TABS
from control_plane.settings import Settings
from testing.control_plane import RunningControlPlane, running
from testing.proxy import Proxy
from tests.integration.control_plane.conftest import ADMIN_TOKEN, DATABASE, client_of
from tests.integration.control_plane.test_access import token_of
from tests.integration.control_plane.test_revisions import through, until_written
from tests.integration.control_plane.usage_batches import batch, cell, ship
from tidegate.contract.credentials import secret_sha256
from tidegate.contract.usage import LimitName, Place
from tidegate.stack.postgres import PostgresServer
from tidegate.top.readings import AdminReader

FROM_HERE = {"Sec-Fetch-Site": "same-origin"}
PAGES = ("/", "/why", "/clients", "/plans", "/regions", "/backends", "/changes", "/developer", "/access")
_HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)">')


def form_of(shown: httpx.Response) -> dict[str, str]:
    """The form that a page shows for the second step."""
    form = shown.text[shown.text.index('<form method="post" action="/console/do/') :]
    return {name: html.unescape(value) for name, value in _HIDDEN.findall(form)}


class Page:
    """A browser in its simplest form: a session's cookie, pages, and forms sent as they stand."""

    def __init__(self, api: httpx.AsyncClient, cookie: str) -> None:
        self._api = api
        self.cookie = cookie

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self._api.get(f"/console{path}", headers={"Cookie": self.cookie, "Authorization": "", **headers})

    async def send(self, path: str, **fields: str) -> httpx.Response:
        return await self._api.post(
            f"/console{path}", data=fields, headers={"Cookie": self.cookie, "Authorization": "", **FROM_HERE}
        )

    async def confirm(self, action: str, **query: str) -> httpx.Response:
        """Both steps: look at what will change, and send that form."""
        shown = await self.get(f"/do/{action}?" + str(httpx.QueryParams({**query, "look": "1"})))
        assert shown.status_code == 200, shown.text
        return await self.send(f"/do/{action}", **form_of(shown))

    async def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([0-9a-f]{64})"', (await self.get("/access")).text)
        assert found is not None
        return found[1]


async def paste(api: httpx.AsyncClient, token: str, **fields: str) -> httpx.Response:
    """Send the login form."""
    return await api.post("/console/login", data={"token": token, **fields}, headers=FROM_HERE)


async def opened(api: httpx.AsyncClient, token: str = ADMIN_TOKEN) -> Page:
    answer = await paste(api, token)
    assert answer.status_code == 200, answer.text
    cookie = answer.headers["set-cookie"].partition(";")[0]
    api.cookies.clear()
    return Page(api, cookie)


async def test_the_cookie_is_out_of_reach_of_scripts_of_other_sites_and_of_plain_http(api: httpx.AsyncClient) -> None:
    given = (await paste(api, ADMIN_TOKEN)).headers["set-cookie"]
    assert given.startswith("__Host-tidegate=")
    assert {"HttpOnly", "Path=/", "SameSite=strict", "Secure", "Max-Age=43200"} <= set(given.split("; "))


async def test_only_on_loopback_a_cookie_does_without_tls(api: httpx.AsyncClient) -> None:
    for host, forwarded, plain in (
        ("127.0.0.1:8000", {}, True),
        ("localhost", {}, True),
        ("[::1]:8000", {}, True),
        ("127.0.0.1:8000", {"X-Forwarded-Proto": "https"}, False),
        ("localhost.example.com", {}, False),
    ):
        headers = {**FROM_HERE, "Host": host, **forwarded}
        given = (await api.post("/console/login", data={"token": ADMIN_TOKEN}, headers=headers)).headers["set-cookie"]
        assert given.startswith("tidegate-console=" if plain else "__Host-tidegate="), host
        assert ("Secure" in given) is not plain


async def test_the_api_never_takes_the_cookie(api: httpx.AsyncClient) -> None:
    page = await opened(api)
    assert (await page.get("/")).status_code == 200
    del api.headers["Authorization"]
    for path in ("/v1/plans", "/v1/tokens", "/internal/v1/stream?node=n&region=r"):
        assert (await api.get(path, headers={"Cookie": page.cookie, **FROM_HERE})).status_code == 401


async def test_wrong_tokens_are_refused_and_counted_by_the_apis_own_throttle(
    make_settings: Callable[..., Settings],
) -> None:
    async with client_of(make_settings(max_failed_authentications=3)) as api:
        statuses = [(await paste(api, f"tga_wrong-{n}")).status_code for n in range(5)]
        assert statuses == [401, 401, 401, 429, 429]
        assert (await paste(api, ADMIN_TOKEN)).status_code == 200


async def test_a_gateways_token_is_refused(api: httpx.AsyncClient) -> None:
    answer = await paste(api, await token_of(api, "gateway"))
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


async def test_a_link_logs_in_once(api: httpx.AsyncClient) -> None:
    link = (await api.post("/v1/console/links")).json()
    assert "set-cookie" not in (await api.head(link["path"])).headers
    first, second = await api.get(link["path"]), await api.get(link["path"])
    assert (first.status_code, second.status_code) == (200, 401)
    assert "set-cookie" in first.headers
    assert "set-cookie" not in second.headers


async def test_links_and_sessions_are_not_kept_as_they_are(
    api: httpx.AsyncClient, postgres_server: PostgresServer
) -> None:
    page, link = await opened(api), (await api.post("/v1/console/links")).json()["path"]
    kept = postgres_server.execute("SELECT console_sessions::text FROM console_sessions", database=DATABASE)
    for secret in (page.cookie.partition("=")[2], link.rpartition("/")[2]):
        assert secret not in kept
        assert secret_sha256(secret) in kept


async def test_a_session_ends_by_itself_and_with_its_token(
    api: httpx.AsyncClient, postgres_server: PostgresServer
) -> None:
    for ending in (
        "UPDATE console_sessions SET last_seen_at = now() - interval '31 minutes'",
        "UPDATE console_sessions SET created_at = now() - interval '12 hours 1 second'",
        "UPDATE tokens SET previous_sha256 = sha256, sha256 = 'new', previous_expires_at = now() WHERE name = 'viewer'",
        "UPDATE tokens SET expires_at = now() - interval '1 second' WHERE name = 'viewer'",
        "UPDATE tokens SET revoked_at = now() WHERE name = 'viewer'",
    ):
        page = await opened(api, await token_of(api, "viewer"))
        assert (await page.get("/why")).status_code == 200
        await asyncio.to_thread(postgres_server.execute, ending, database=DATABASE)
        answer = await page.get("/why")
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/login?next=/console/why"), ending
        forget = "UPDATE tokens SET revoked_at = now(), sha256 = token_id, name = token_id WHERE name = 'viewer'"
        await asyncio.to_thread(postgres_server.execute, forget, database=DATABASE)


async def test_a_token_that_is_rotated_with_an_overlap_keeps_its_sessions_until_that_ends(
    api: httpx.AsyncClient, postgres_server: PostgresServer
) -> None:
    page = await opened(api)
    await api.post("/v1/tokens/tok_first/rotate", json={"overlap_s": 60})
    assert (await page.get("/")).status_code == 200
    await asyncio.to_thread(postgres_server.execute, "UPDATE tokens SET previous_expires_at = now()", database=DATABASE)
    assert (await page.get("/")).status_code == 303


async def test_who_logs_out_is_out(api: httpx.AsyncClient) -> None:
    page = await opened(api)
    assert (await page.send("/logout", csrf=await page.csrf())).status_code == 303
    assert (await page.get("/")).status_code == 303


async def test_a_form_from_elsewhere_does_nothing(api: httpx.AsyncClient) -> None:
    page = await opened(api)
    fields = {"csrf": await page.csrf(), "minutes": "60"}
    site = "Sec-Fetch-Site"
    for headers in (
        {site: "cross-site"},
        {site: "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {},
    ):
        answer = await api.post("/console/do/shadow", data=fields, headers={"Cookie": page.cookie, **headers})
        assert answer.status_code == 403
        login = await api.post("/console/login", data={"token": ADMIN_TOKEN}, headers=headers)
        assert (login.status_code, "set-cookie" in login.headers) == (403, False)
    assert (await api.get("/v1/enforcement")).json()["items"] == []
    headers = {"Cookie": page.cookie, "Origin": "http://control-plane"}  # a browser without Sec-Fetch-Site
    assert (await api.post("/console/do/shadow", data=fields, headers=headers)).status_code == 200


async def test_names_with_signs_are_found_and_a_slash_leads_nowhere(api: httpx.AsyncClient) -> None:
    page = await opened(api)
    assert (await api.put("/v1/plans/free", json={})).is_success
    assert (await api.put("/v1/plans/free/limits/hourly", json={"limit": 7, "window_s": 3600})).is_success
    assert (await api.post("/v1/clients", json={"client": "org:a@b", "plan": "free"})).is_success
    shown = await page.get("/developer?" + str(httpx.QueryParams({"client": "org:a@b"})))
    assert "hourly" in shown.text
    for action, query in (("override", "name=hourly"), ("client", ""), ("reset", ""), ("add-key", "")):
        away = await page.get(f"/do/{action}?look=1&client=org:a@b/limits&{query}&limit=9")
        assert (away.status_code, "slash" in away.text) == (404, True), action


async def test_a_form_needs_the_token_of_its_own_session(api: httpx.AsyncClient) -> None:
    page, other = await opened(api), await opened(api)
    for csrf in ("", "0" * 64, "ä", await other.csrf()):
        assert (await page.send("/do/shadow", csrf=csrf, minutes="60")).status_code == 403
    assert (await api.get("/v1/enforcement")).json()["items"] == []


async def test_no_page_lets_anything_in_from_elsewhere(api: httpx.AsyncClient) -> None:
    page = await opened(api)
    for path in (*PAGES, "/login", "/no-such-page", "/do/shadow"):
        answer = await page.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?! defer src=)|(?:src|href)=\"https?:", answer.text)


async def test_the_login_leads_nowhere_else(api: httpx.AsyncClient) -> None:
    for target in ("https://evil.example/", "//evil.example", "/\\evil.example", "/v1/plans", "/console/\\\\x", "//["):
        answer = await paste(api, ADMIN_TOKEN, next=target)
        assert 'content="0;url=/console/"' in answer.text, target
    assert 'content="0;url=/console/why?q=a"' in (await paste(api, ADMIN_TOKEN, next="/console/why?q=a")).text


async def test_every_page_is_for_every_role_and_no_button_is_shown_that_would_be_refused(
    api: httpx.AsyncClient,
) -> None:
    await api.put("/v1/plans/free", json={"limits": [{"name": "hourly", "limit": 9, "window_s": 3600}]})
    await api.put("/v1/clients/acme", json={"plan": "free"})
    await api.put("/v1/blocks/b1", json={"client": "acme"})
    one = ("/client/acme", "/plan/free", "/why?q=acme", "/why?q=tg_", "/why?q=10.0.0.1", "/why?q=req-1", "/revision/1")
    buttons: dict[str, set[str]] = {}
    for role in ("viewer", "operator", "admin"):
        page = await opened(api, await token_of(api, role))
        for path in (*PAGES, *one):
            answer = await page.get(path)
            assert answer.status_code == 200, (role, path, answer.text)
            buttons.setdefault(role, set()).update(re.findall(r'href="/console(/do/[^"]+)"', answer.text))
        for target in buttons[role]:
            reached = await page.get(target.replace("&amp;", "&"))
            assert reached.status_code == 200, (role, target, reached.status_code)
    assert buttons["viewer"] == set() < buttons["operator"] < buttons["admin"]


async def test_every_action_is_refused_to_whose_role_is_too_weak(api: httpx.AsyncClient) -> None:
    viewer, operator = (
        await opened(api, await token_of(api, "viewer")),
        await opened(api, await token_of(api, "operator")),
    )
    before = (await api.get("/v1/revisions")).json()["items"]
    for name, action in ACTIONS.items():
        weak = viewer if action.role == "operator" else operator
        assert (await weak.get(f"/do/{name}")).status_code == 403
        assert (await weak.send(f"/do/{name}", csrf=await weak.csrf())).status_code == 403
    assert (await api.get("/v1/revisions")).json()["items"] == before


async def test_a_change_is_written_by_the_token_that_logged_in_and_as_the_api_writes_it(api: httpx.AsyncClient) -> None:
    page = await opened(api, await token_of(api, "operator"))
    answer = await page.confirm("shadow", minutes="60", reason="the site is down → all of it")
    assert answer.status_code == 200
    entry = (await api.get("/v1/audit", params={"resource": "switch"})).json()["items"][0]
    assert (entry["author"], entry["role"], entry["reason"]) == ("operator", "operator", "the site is down → all of it")
    assert entry["request_id"] == answer.headers["x-request-id"]
    assert (await api.get("/v1/enforcement")).json()["items"][0]["mode"] == "shadow"


async def test_what_was_changed_meanwhile_is_shown_and_not_overwritten(api: httpx.AsyncClient) -> None:
    await api.put("/v1/plans/free", json={"limits": [{"name": "hourly", "limit": 9, "window_s": 3600}]})
    page = await opened(api)
    query = {"plan": "free", "name": "hourly", "limit": "50", "window_s": "3600", "way": "now", "look": "1"}
    shown = await page.get("/do/limit?" + str(httpx.QueryParams(query)))
    await api.put("/v1/plans/free/limits/hourly", json={"limit": 7, "window_s": 3600})
    form = form_of(shown)
    assert (await page.send("/do/limit", **form)).status_code == 412
    assert (await api.get("/v1/plans/free/limits/hourly")).json()["limit"] == 7


_OVERRIDE = {"client": "acme", "name": "hourly", "limit": "50"}
_TRIAL = {"plan": "free", "name": "hourly", "limit": "50", "window_s": "3600", "way": "shadow"}
_IN_SHADOW = {"limit": 7, "window_s": 3600, "shadow": True}


@pytest.mark.parametrize("there", [False, True], ids=["not-there", "there"])
@pytest.mark.parametrize(
    ("action", "query", "path", "theirs"),
    [
        ("override", _OVERRIDE, "/clients/acme/overrides/hourly", {"limit": 7}),
        ("limit", _TRIAL, "/plans/free/limits/hourly-try", _IN_SHADOW),
        ("shadow", {"minutes": "60"}, "/enforcement", {"mode": "enforce"}),
        ("shadow", {"target": "free/hourly", "minutes": "60"}, "/enforcement/free/hourly", {"mode": "enforce"}),
        ("factor", {"backend": "users", "factor": "0.5", "minutes": "60"}, "/backends/users/factor",
         {"factor": 0.25, "expires_at": "2100-01-01T00:00:00Z"}),
    ],
    ids=["override", "trial", "shadow-of-all", "shadow-of-one", "factor"],
)  # fmt: skip
async def test_what_came_or_was_changed_meanwhile_is_not_overwritten(
    api: httpx.AsyncClient, action: str, query: dict[str, str], path: str, theirs: dict[str, object], there: bool
) -> None:
    await api.put("/v1/plans/free", json={"limits": [{"name": "hourly", "limit": 9, "window_s": 3600}]})
    await api.put("/v1/clients/acme", json={"plan": "free"})
    await api.put("/v1/adaptive-policies/careful", json={})
    await api.put("/v1/backends/users", json={"adaptive": "careful"})
    page = await opened(api)
    if there:
        assert (await page.confirm(action, **query)).status_code == 200
    shown = await page.get(f"/do/{action}?" + str(httpx.QueryParams({**query, "look": "1"})))
    assert (await api.put(f"/v1{path}", json=theirs)).status_code in {200, 201}
    before = (await api.get("/v1/revisions")).json()["items"]
    answer = await page.send(f"/do/{action}", **form_of(shown))
    assert answer.status_code == 412
    assert "Somebody changed it since you looked" in answer.text
    assert (await api.get("/v1/revisions")).json()["items"] == before
    assert (await page.send(f"/do/{action}", **form_of(answer))).status_code == 200


async def test_an_override_that_ended_meanwhile_is_not_made_anew(api: httpx.AsyncClient) -> None:
    await api.put("/v1/plans/free", json={"limits": [{"name": "hourly", "limit": 9, "window_s": 3600}]})
    await api.put("/v1/clients/acme", json={"plan": "free"})
    await api.put("/v1/clients/acme/overrides/hourly", json={"limit": 7})
    page = await opened(api)
    shown = await page.get("/do/override?client=acme&name=hourly&limit=50&look=1")
    await api.delete("/v1/clients/acme/overrides/hourly")
    assert (await page.send("/do/override", **form_of(shown))).status_code == 412
    assert (await api.get("/v1/clients/acme/overrides")).json()["items"] == []


async def test_a_change_that_overrides_may_not_fit_says_that_they_may_end(api: httpx.AsyncClient) -> None:
    limit = {"name": "hourly", "limit": 9, "window_s": 3600, "algorithm": "token_bucket"}
    for plan in ("free", "team"):
        await api.put(f"/v1/plans/{plan}", json={"limits": [limit]})
    await api.put("/v1/clients/acme", json={"plan": "free"})
    page = await opened(api)
    for action, ends in (
        ("limit?plan=free&name=hourly&limit=8&way=policy", False),
        ("limit?plan=free&name=hourly&limit=9&burst=4&way=policy", True),
        ("client?client=acme&plan=team", True),
        ("client?client=acme&status=suspended", False),
    ):
        shown = (await page.get(f"/do/{action}&look=1")).text
        assert '<form method="post"' in shown
        assert ("Overrides end as far as they do not fit" in shown) == ends, action


async def test_an_enforcement_override_that_changed_meanwhile_is_not_ended(api: httpx.AsyncClient) -> None:
    page = await opened(api)
    await api.put("/v1/enforcement", json={"mode": "enforce"})
    shown = await page.get("/do/enforce")
    await api.put("/v1/enforcement", json={"mode": "shadow"})
    assert (await page.send("/do/enforce", **form_of(shown))).status_code == 412
    assert (await page.confirm("enforce")).status_code == 200


async def test_a_trial_shows_the_one_before_it(api: httpx.AsyncClient) -> None:
    await api.put("/v1/plans/free", json={"limits": [{"name": "hourly", "limit": 9, "window_s": 3600}]})
    await api.put("/v1/plans/free/limits/hourly-try", json=_IN_SHADOW)
    shown = await (await opened(api)).get("/do/limit?" + str(httpx.QueryParams({**_TRIAL, "look": "1"})))
    assert re.search(r'<td class="old">7 in shadow</td><td class="new">50 in shadow</td>', shown.text)


async def test_a_rollback_of_more_than_ten_deletions_asks_how_many_are_allowed(api: httpx.AsyncClient) -> None:
    await api.put("/v1/plans/free", json={"limits": []})
    number = (await api.get("/v1/revisions")).json()["items"][0]["revision"]
    for client in range(11):
        await api.put(f"/v1/clients/client-{client}", json={"plan": "free"})
    page = await opened(api)
    refused = await page.get(f"/do/rollback?number={number}&look=1")
    assert refused.status_code == 422
    assert re.search(r'id="allow_deletes"[^>]*aria-invalid="true".*?this would delete 11;', refused.text, re.DOTALL)
    assert (await page.confirm("rollback", number=str(number), allow_deletes="11")).status_code == 200
    assert (await api.get("/v1/clients")).json()["items"] == []


async def test_a_bucket_without_a_burst_can_be_given_one(api: httpx.AsyncClient) -> None:
    bucket = {"name": "steady", "algorithm": "token_bucket", "limit": 100, "window_s": 1}
    await api.put("/v1/plans/free", json={"limits": [bucket]})
    page = await opened(api)
    assert (
        await page.confirm("limit", plan="free", name="steady", limit="100", burst="50", way="now")
    ).status_code == 200
    assert (await api.get("/v1/plans/free/limits/steady")).json()["burst"] == 50


async def test_a_form_that_is_sent_twice_is_done_once(api: httpx.AsyncClient) -> None:
    await api.put("/v1/plans/free", json={"limits": []})
    await api.put("/v1/clients/acme", json={"plan": "free"})
    page = await opened(api)
    shown = await page.get("/do/block?kind=client&of=acme&minutes=60&look=1")
    form = form_of(shown)
    assert [(await page.send("/do/block", **form)).status_code for _ in range(2)] == [200, 200]
    assert len((await api.get("/v1/blocks")).json()["items"]) == 1


async def test_an_error_stands_at_its_field(api: httpx.AsyncClient) -> None:
    page = await opened(api)
    answer = await page.get("/do/factor?backend=x&factor=2&minutes=60&look=1")
    assert answer.status_code == 404
    await api.put("/v1/backends/users", json={})
    answer = await page.get("/do/factor?backend=users&factor=2&minutes=60&look=1")
    assert answer.status_code == 422
    assert re.search(r'id="factor" [^>]*value="2"[^>]*aria-invalid="true"', answer.text, re.DOTALL)


async def test_a_pasted_key_never_stands_in_an_address(api: httpx.AsyncClient) -> None:
    page = await opened(api)
    key = "tg_" + "s" * 60
    answer = await page.send("/why", csrf=await page.csrf(), q=key)
    assert answer.headers["location"] == f"/console/why?q={key[:8]}"


async def test_what_customers_are_called_is_text_and_nothing_else(api: httpx.AsyncClient) -> None:
    await api.put("/v1/plans/free", json={"limits": []})
    await api.put("/v1/clients/acme", json={"plan": "free", "external_id": "<script>alert(1)</script>"})
    page = await opened(api)
    for path in ("/client/acme", "/clients", "/why?q=%3Cscript%3Ealert(1)%3C/script%3E"):
        assert "<script>alert" not in (await page.get(path)).text


async def test_off_takes_the_console_away(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEGATE_CONSOLE", "off")
    async with client_of(make_settings()) as api:
        assert (await api.get("/console/login")).status_code == 404
        assert (await api.get("/console/")).status_code == 404
        assert (await api.post("/v1/console/links")).status_code == 404


async def test_a_link_from_elsewhere_finds_the_page_once_the_cookie_comes_along(api: httpx.AsyncClient) -> None:
    answer = await api.get("/console/why?q=acme", headers={"Sec-Fetch-Site": "cross-site"})
    assert 'content="0;url=/console/why?q=acme"' in answer.text


@asynccontextmanager
async def live(served: RunningControlPlane, cookie: str, of: str) -> AsyncIterator[AsyncIterator[str]]:
    url = f"{served.url}/console/events?of={of}"
    async with (
        httpx.AsyncClient(trust_env=False, timeout=15) as client,
        client.stream("GET", url, headers={"Cookie": cookie}) as stream,
    ):
        assert stream.status_code == 200
        yield stream.aiter_lines()


async def until_line(lines: AsyncIterator[str], wanted: str) -> None:
    async with asyncio.timeout(10):
        async for line in lines:
            if wanted in line:
                return
    raise AssertionError(f"the stream ended before {wanted!r}")


async def served_page(served: RunningControlPlane) -> Page:
    async with httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
        return await opened(client)


async def test_why_finds_what_was_denied_among_more_lines_of_usage_than_a_page_holds(
    served: RunningControlPlane,
) -> None:
    limits = [{"name": "hourly", "limit": 100, "window": "hour"}]
    (await served.admin.put("/v1/plans/free", json={"limits": limits})).raise_for_status()
    (await served.admin.put("/v1/clients/acme", json={"plan": "free"})).raise_for_status()
    places = tuple(Place("free", f"route-{number:04}", (LimitName("free", "hourly"),)) for number in range(1_002))
    cells = [cell(place=number) for number in range(1_001)]
    await ship(served, batch(1, *cells, cell(place=1_001, denied=7), places=places))
    page = await served_page(served)
    async with httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=20) as client:
        shown = (await Page(client, page.cookie).get("/why?q=acme")).text
    assert "most often hourly at route-1001 in us-east (7 requests)" in shown


async def test_a_time_without_half_an_hour_around_it_is_refused(api: httpx.AsyncClient) -> None:
    page = await opened(api)
    for at in ("0001-01-01", "9999-12-31T23:59:00Z"):
        assert (await page.get(f"/why?q=acme&at={at}")).status_code == 422


async def test_an_agent_is_no_node_and_hides_not_that_all_of_these_are_gone(served: RunningControlPlane) -> None:
    async with served.node("agent-1", role="agent").following():
        async with served.node("node-1").following(), served.node("node-2").following():
            await served.until_nodes(lambda nodes: len(nodes) == 3 and all(one["connected"] for one in nodes.values()))
            page = await served_page(served)
            async with httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
                shown = (await Page(client, page.cookie).get("/")).text
            assert "<b>2<small> / 2</small></b>" in shown
            assert "3 of 3 nodes and agents are connected" in shown
        await served.until_nodes(lambda nodes: sum(one["connected"] for one in nodes.values()) == 1)
        async with httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
            assert "No node of us-east is connected." in (await Page(client, page.cookie).get("/")).text
            assert "no node connected" in (await Page(client, page.cookie).get("/regions")).text
    await served.until_nodes(lambda nodes: not any(one["connected"] for one in nodes.values()))
    async with httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
        assert "No agent of us-east is connected." in (await Page(client, page.cookie).get("/")).text


async def test_blocks_and_enforcement_overrides_in_force_are_counted_and_no_others(
    served: RunningControlPlane, postgres_server: PostgresServer
) -> None:
    postgres_server.execute(
        """
        INSERT INTO blocks (block, client, reason_class)
        SELECT 'b' || n, 'acme', 'abuse' FROM generate_series(1, 1001) n;
        INSERT INTO blocks (block, client, reason_class, expires_at) VALUES ('ended', 'acme', 'abuse', now());
        INSERT INTO enforcement (target, mode, expires_at) VALUES ('*', 'shadow', now()), ('_/one', 'shadow', NULL)
        """,
        database=DATABASE,
    )
    async with httpx.AsyncClient(base_url=served.url, trust_env=False) as client:
        shown = (await (await opened(client)).get("/")).text
    assert re.search(r"<span>Blocks</span><b>1001</b>", shown)
    assert re.search(r"<span>Enforcement overrides</span><b>1</b>", shown)
    assert "All limits are set to shadow by hand." not in shown
    with closing(AdminReader(served.url, ADMIN_TOKEN, datetime.now(UTC))) as reader:
        reading = await asyncio.to_thread(reader.read)
    assert (reading.blocks, reading.overrides) == (1001, ("_/one: shadow",))


async def test_nodes_and_regions_are_read_on_all_pages(
    served: RunningControlPlane, postgres_server: PostgresServer
) -> None:
    postgres_server.execute(
        """
        INSERT INTO regions (region) SELECT 'r' || n FROM generate_series(1, 1001) n;
        INSERT INTO nodes (region, node, version, applied_revision)
        SELECT 'r1', 'n' || n, '', 0 FROM generate_series(1, 1001) n
        """,
        database=DATABASE,
    )
    async with httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=20) as client:
        page = await opened(client)
        now, regions = (await page.get("/")).text, (await page.get("/regions")).text
    assert "<b>0<small> / 1001</small></b>" in now
    assert "<span>Regions</span><b>1002</b>" in now
    assert regions.count("no node connected") == 1002
    with closing(AdminReader(served.url, ADMIN_TOKEN, datetime.now(UTC))) as reader:
        reading = await asyncio.to_thread(reader.read)
    assert (len(reading.regions), len(reading.nodes)) == (1002, 1001)


async def test_a_change_is_shown_at_once_in_every_open_tab(
    served: RunningControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.console.feed.EVERY_S", 600.0)
    page = await served_page(served)
    async with live(served, page.cookie, "revisions") as one, live(served, page.cookie, "revisions") as other:
        for lines in (one, other):
            await until_line(lines, "retry")  # from here on it is sent what changes; the page showed what was there
        await served.admin.put("/v1/plans/free", json={"limits": []}, headers={"X-Tidegate-Reason": "because-of-x"})
        await until_line(one, "because-of-x")
        await until_line(other, "because-of-x")


async def test_a_replica_bears_so_many_tabs_and_no_more(
    served: RunningControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_TABS <= 1_000
    monkeypatch.setattr("control_plane.console.feed.MAX_TABS", 1)
    page = await served_page(served)
    async with live(served, page.cookie, "") as lines:
        await until_line(lines, "retry")
        refused = await served.admin.get("/console/events", headers={"Cookie": page.cookie})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")


async def test_a_stream_is_for_sessions_and_ends_with_them(
    served: RunningControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control_plane.console.feed.SESSIONS_EVERY_S", 0.0)
    assert (await served.admin.get("/console/events")).status_code == 401
    page = await served_page(served)
    async with live(served, page.cookie, "revisions") as lines:
        await until_line(lines, "event: revisions")
        (await served.admin.post("/v1/tokens", json={"name": "second", "role": "admin"})).raise_for_status()
        (await served.admin.delete("/v1/tokens/tok_first")).raise_for_status()
        await until_line(lines, "event: ended")


async def test_a_tab_that_is_left_open_keeps_no_session_alive(
    served: RunningControlPlane, postgres_server: PostgresServer
) -> None:
    page = await served_page(served)
    await asyncio.to_thread(
        postgres_server.execute,
        "UPDATE console_sessions SET last_seen_at = now() - interval '29 min'",
        database=DATABASE,
    )
    async with live(served, page.cookie, "revisions") as lines:  # as it connects again and again through a proxy
        await until_line(lines, "event: revisions")
    await asyncio.to_thread(
        postgres_server.execute,
        "UPDATE console_sessions SET last_seen_at = last_seen_at - interval '2 min'",
        database=DATABASE,
    )
    answer = await served.admin.get("/console/why", headers={"Cookie": page.cookie})
    assert answer.status_code == 303


async def test_with_postgres_away_it_says_so_and_shows_what_nodes_last_reported(
    make_settings: Callable[..., Settings], postgres_server: PostgresServer
) -> None:
    async with Proxy(postgres_server.port).running() as proxy:
        url = through(proxy, make_settings(), postgres_server)
        settings = make_settings(database_url=url, database_connect_timeout_s=5.0, database_command_timeout_s=5.0)
        async with running(settings, ADMIN_TOKEN) as served:
            await served.add_region("us-east")
            async with (
                served.node("node-7").following(),
                httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=20) as client,
            ):
                await served.until_nodes(lambda nodes: "node-7" in nodes)
                page = await opened(client)
                assert "node-7" in (await page.get("/")).text
                await proxy.cut()
                for path in ("/", "/clients"):
                    answer = await page.get(path)
                    assert answer.status_code == 503
                    assert "Postgres is away" in answer.text
                    assert "node-7" in answer.text
                stranger = await Page(client, "tidegate-console=unknown").get("/")
                assert (stranger.status_code, "node-7" in stranger.text) == (503, False)
                await proxy.heal()
                await until_written(served.admin, "free")
                assert (await page.get("/")).status_code == 200
