"""People and CI of a real OpenID Connect provider: who gets in, as whom, and how everything else is refused."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from control_plane.oidc import provider as provider_module
from control_plane.settings import Settings
from testing.control_plane import running
from testing.oidc import AUDIENCE, CLIENT_SECRET, PUBLIC_URL, OidcProvider, oidc_provider, private_key, query_of
from tests.integration.control_plane.conftest import ADMIN_TOKEN, client_of
from tests.integration.control_plane.test_access import bearer
from tests.integration.control_plane.test_console import FROM_HERE, Page
from tidegate.cli import app as cli
from tidegate.stack.postgres import PostgresServer

GRANTS = (
    {"group": "sre", "role": "admin"},
    {"group": "acme", "role": "operator", "client_prefixes": ("acme-",)},
)
COOKIE = "__Host-tidegate-sign-in"


@pytest.fixture(scope="module")
def started_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcProvider]:
    with oidc_provider(tmp_path_factory.mktemp("oidc") / "provider.log") as started:
        yield started


@pytest.fixture
def provider(started_provider: OidcProvider) -> Iterator[OidcProvider]:
    """The provider, which a test may stop, or start with other keys."""
    keys = started_provider.keys
    yield started_provider
    if started_provider.keys != keys or not started_provider.runs:
        started_provider.restart(keys)


@pytest.fixture
def oidc_settings(make_settings: Callable[..., Settings], provider: OidcProvider) -> Callable[..., Settings]:
    def make(**changes: Any) -> Settings:
        values = {
            "public_url": PUBLIC_URL,
            "oidc_issuer": provider.issuer,
            "oidc_name": "Example",
            "oidc_client_id": "console",
            "oidc_client_secret": SecretStr(CLIENT_SECRET),
            "oidc_scopes": "openid email groups",
            "oidc_audience": AUDIENCE,
            "oidc_grants": GRANTS,
        }
        return make_settings(**(values | changes))

    return make


@pytest.fixture
async def api(oidc_settings: Callable[..., Settings]) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(oidc_settings()) as client:
        yield client


def cookie_of(answer: httpx.Response, name: str = COOKIE) -> str:
    """A cookie that an answer sets, as a browser sends it back."""
    found = [one for one in answer.headers.get_list("set-cookie") if one.startswith(f"{name}=")]
    assert len(found) == 1, answer.headers
    return found[0].partition(";")[0]


async def begun(api: httpx.AsyncClient, after: str = "") -> tuple[str, str]:
    """Press the button: where the browser is sent, and the cookie that it keeps."""
    answer = await api.get("/console/oidc/begin", params={"next": after}, headers={"Authorization": ""})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"], cookie_of(answer)


async def back(api: httpx.AsyncClient, url: str, cookie: str) -> httpx.Response:
    """Come back from the provider."""
    parts = urlsplit(url)
    headers = {"Authorization": "", "Cookie": cookie, "Sec-Fetch-Site": "cross-site"}
    answer = await api.get(f"{parts.path}?{parts.query}", headers=headers)
    assert "Max-Age=0" in next(one for one in answer.headers.get_list("set-cookie") if one.startswith(COOKIE))
    api.cookies.clear()
    return answer


async def signed_in(api: httpx.AsyncClient, provider: OidcProvider, account: str, after: str = "") -> httpx.Response:
    url, cookie = await begun(api, after)
    return await back(api, await asyncio.to_thread(provider.sign_in, url, account), cookie)


def session_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return cookie_of(answer, "__Host-tidegate")


async def test_a_person_signs_in_works_and_signs_out(api: httpx.AsyncClient, provider: OidcProvider) -> None:
    login = (await api.get("/console/login", params={"next": "/console/plans"})).text
    assert 'href="/console/oidc/begin?next=/console/plans">Sign in with Example</a>' in login
    answer = await signed_in(api, provider, "anna", "/console/plans")
    assert 'content="0;url=/console/plans"' in answer.text
    given = next(one for one in answer.headers.get_list("set-cookie") if one.startswith("__Host-tidegate="))
    assert {"HttpOnly", "Secure", "SameSite=strict"} <= set(given.split("; "))
    page = Page(api, session_of(answer))
    shown = await page.get("/access")
    assert shown.status_code == 200
    assert "anna@example.com" in shown.text
    assert (await page.confirm("add-token", name="hers", role="viewer", minutes="60")).status_code == 200
    entry = (await api.get("/v1/audit", params={"resource": "token"})).json()["items"][0]
    assert entry["author"] == f"anna@example.com <{provider.issuer}#anna>"
    assert entry["role"] == "admin"
    found = await api.get("/v1/audit", params={"author": entry["author"]})
    assert len(found.json()["items"]) == 1
    assert (await page.send("/logout", csrf=await page.csrf())).status_code == 303
    assert (await page.get("/access")).status_code == 303


async def test_what_the_browser_carries_to_the_provider(api: httpx.AsyncClient, provider: OidcProvider) -> None:
    (url, cookie), (other, _) = await begun(api), await begun(api)
    asked = query_of(url)
    assert url.startswith(f"{provider.issuer}/auth?")
    assert asked["redirect_uri"] == f"{PUBLIC_URL}/console/oidc/callback"
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    parts = [asked["state"], asked["nonce"], asked["code_challenge"]]
    assert len({*parts, *(query_of(other)[name] for name in ("state", "nonce", "code_challenge"))}) == 6
    assert all(len(part) == 43 for part in parts)
    assert not any(part in cookie for part in parts)
    answer = await api.get("/console/oidc/begin")
    flags = next(iter(answer.headers.get_list("set-cookie"))).split("; ")
    assert {"HttpOnly", "Secure", "SameSite=lax", "Max-Age=600"} <= set(flags)


async def test_a_group_gives_its_role_for_its_clients_alone(api: httpx.AsyncClient, provider: OidcProvider) -> None:
    await api.put("/v1/plans/free", json={"limits": []})
    for client in ("acme-1", "globex-1"):
        await api.put(f"/v1/clients/{client}", json={"plan": "free"})
    page = Page(api, session_of(await signed_in(api, provider, "ben")))
    assert (await page.get("/")).headers["location"] == "/console/clients"
    listed = (await page.get("/clients")).text
    assert "acme-1" in listed
    assert "globex-1" not in listed
    assert "operator for clients named acme-*" in listed
    assert (await page.get("/client/acme-1")).status_code == 200
    for path in ("/client/globex-1", "/plans", "/changes", "/access", "/regions"):
        assert (await page.get(path)).status_code == 403, path


async def test_whoever_has_no_role_gets_no_session(api: httpx.AsyncClient, provider: OidcProvider) -> None:
    for account, words in (
        ("carl", "None of your groups has a role here."),
        ("nobody-in-particular", "The provider sent no claim groups, so you have no role here."),
    ):
        answer = await signed_in(api, provider, account)
        assert answer.status_code == 403
        assert words in answer.text
        assert "__Host-tidegate=" not in str(answer.headers)


async def test_a_sign_in_fits_one_browser_and_works_once(api: httpx.AsyncClient, provider: OidcProvider) -> None:
    url, cookie = await begun(api)
    returned = await asyncio.to_thread(provider.sign_in, url, "anna")
    _, of_another = await begun(api)
    query = query_of(returned)

    def with_(**members: str) -> str:
        return f"/console/oidc/callback?{urlencode({**query, **members})}"

    no_state = with_(state="")
    for target, sent in (
        (returned, of_another),
        (returned, ""),
        (returned, cookie[:-1] + ("A" if cookie[-1] != "A" else "B")),
        (with_(state="x" * 43), cookie),
        (with_(state="é"), cookie),
        (no_state, cookie),
        (with_(iss="https://other.example"), cookie),
        (with_(error="access_denied"), cookie),
        (with_(code=""), cookie),
        (with_(code="x" * 5_000), cookie),
        (with_(code="not-a-code"), cookie),
    ):
        answer = await back(api, target, sent)
        assert answer.status_code == 401, (target, answer.text)
        assert "__Host-tidegate=" not in str(answer.headers)
    # the provider takes a code back that is tried twice, so it is a fresh one that works, once
    url, cookie = await begun(api)
    returned = await asyncio.to_thread(provider.sign_in, url, "anna")
    session_of(await back(api, returned, cookie))
    replayed = await back(api, returned, cookie)
    assert replayed.status_code == 401
    assert "it was used already" in replayed.text


async def test_a_sign_in_that_took_too_long_is_over(
    api: httpx.AsyncClient, provider: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, cookie = await begun(api)
    returned = await asyncio.to_thread(provider.sign_in, url, "anna")
    monkeypatch.setattr("control_plane.oidc.sign_in.SIGN_IN_LASTS_S", -1)
    answer = await back(api, returned, cookie)
    assert answer.status_code == 401
    assert "took longer than ten minutes" in answer.text


async def test_nobody_is_led_to_another_site(api: httpx.AsyncClient, provider: OidcProvider) -> None:
    for after in ("https://evil.example/", "//evil.example", "/console/../x\\", "/v1/tokens", "javascript:alert(1)"):
        answer = await signed_in(api, provider, "anna", after)
        assert 'content="0;url=/console/"' in answer.text, after


async def test_sessions_of_people_end_with_their_time_and_with_their_groups_role(
    oidc_settings: Callable[..., Settings], provider: OidcProvider
) -> None:
    async with client_of(oidc_settings()) as api:
        cookie = session_of(await signed_in(api, provider, "ben"))
    viewers = ({"group": "acme", "role": "viewer"},)
    async with client_of(oidc_settings(oidc_grants=viewers)) as api:  # the mapping of today counts
        assert (await Page(api, cookie).get("/")).status_code == 200
        assert (await Page(api, cookie).get("/do/add-plan")).status_code in {403, 404}
    others = ({"group": "sre", "role": "viewer"},)
    async with client_of(oidc_settings(oidc_grants=others)) as api:
        assert (await Page(api, cookie).get("/")).status_code == 303
    async with client_of(
        oidc_settings(oidc_issuer=None, oidc_client_id=None, oidc_audience=None, oidc_grants=())
    ) as api:
        assert (await Page(api, cookie).get("/")).status_code == 303
        assert (await api.get("/console/oidc/begin")).status_code == 404
        assert "Sign in with" not in (await api.get("/console/login")).text


async def test_a_session_ends_when_the_provider_is_to_be_asked_again(
    api: httpx.AsyncClient, provider: OidcProvider, postgres_server: PostgresServer, database_name: str
) -> None:
    page = Page(api, session_of(await signed_in(api, provider, "anna")))
    assert (await page.get("/access")).status_code == 200
    later = "UPDATE console_sessions SET person = jsonb_set(person, '{until_s}', '1')"
    await asyncio.to_thread(postgres_server.execute, later, database=database_name)
    assert (await page.get("/access")).status_code == 303


async def test_ci_calls_the_admin_api_by_its_jwt(api: httpx.AsyncClient, provider: OidcProvider) -> None:
    await api.put("/v1/plans/free", json={"limits": []})
    ci = bearer(await asyncio.to_thread(provider.ci_token))
    made = await api.put("/v1/clients/acme-9", json={"plan": "free"}, headers=ci)
    assert made.status_code == 201, made.text
    assert (await api.put("/v1/clients/other", json={"plan": "free"}, headers=ci)).status_code == 403
    assert (await api.get("/v1/tokens", headers=ci)).status_code == 403
    author = (await api.get("/v1/audit", params={"resource": "client"})).json()["items"][0]["author"]
    assert author == f"ci <{provider.issuer}#ci>"
    refused = await api.post("/v1/console/links", headers=ci)
    assert (refused.status_code, refused.json()["detail"]) == (
        403, "Links are made by tokens: people sign in at /console/login.",
    )  # fmt: skip
    again = await api.post(
        "/v1/clients", json={"client": "acme-10", "plan": "free"}, headers={**ci, "Idempotency-Key": "k"}
    )
    assert again.status_code == 201
    no_role = bearer(await asyncio.to_thread(provider.ci_token, "other"))
    answer = await api.get("/v1/clients", headers=no_role)
    assert (answer.status_code, answer.json()["detail"]) == (403, "None of your groups has a role here.")
    elsewhere = bearer(await asyncio.to_thread(provider.ci_token, "deploy", "https://another.example"))
    answer = await api.get("/v1/clients", headers=elsewhere)
    assert (answer.status_code, answer.json()["detail"]) == (401, "The JWT is meant for another audience.")
    assert (await api.get("/internal/v1/newest", params={"node": "n"}, headers=ci)).status_code == 401


async def test_the_commands_take_a_jwt(oidc_settings: Callable[..., Settings], provider: OidcProvider) -> None:
    token = await asyncio.to_thread(provider.ci_token)
    async with running(oidc_settings(), ADMIN_TOKEN) as served:
        (await served.admin.put("/v1/plans/free", json={"limits": []})).raise_for_status()
        env = {"TIDEGATE_URL": served.url, "TIDEGATE_ADMIN_TOKEN": token}

        async def run(client: str) -> Result:
            command = ["clients", "create", client, "--plan", "free", "--wait-s", "0"]
            return await asyncio.to_thread(CliRunner().invoke, cli, command, env=env)

        done, refused = await run("acme-1"), await run("globex-1")
        assert done.exit_code == 0, done.output
        assert refused.exit_code == 1
        assert "You may see and change clients named acme-*" in refused.output
        assert (await served.admin.get("/v1/clients/acme-1")).status_code == 200


async def test_without_an_audience_no_jwt_is_taken(
    oidc_settings: Callable[..., Settings], provider: OidcProvider
) -> None:
    async with client_of(oidc_settings(oidc_audience=None)) as api:
        answer = await api.get("/v1/clients", headers=bearer(await asyncio.to_thread(provider.ci_token)))
        assert answer.status_code == 401


async def test_the_provider_changes_its_keys(
    api: httpx.AsyncClient, provider: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new key is believed at once; one that was taken back, no longer than until the keys are read again."""
    monkeypatch.setattr(provider_module, "COOLDOWN_S", 0.0)
    old = bearer(await asyncio.to_thread(provider.ci_token))
    assert (await api.get("/v1/clients", headers=old)).status_code == 200
    await asyncio.to_thread(provider.restart, [private_key("second", "RS256"), *provider.keys])
    new = bearer(await asyncio.to_thread(provider.ci_token))
    assert (await api.get("/v1/clients", headers=new)).status_code == 200
    assert (await api.get("/v1/clients", headers=old)).status_code == 200
    await asyncio.to_thread(provider.restart, [private_key("third")])
    assert (await api.get("/v1/clients", headers=bearer(await asyncio.to_thread(provider.ci_token)))).status_code == 200
    answer = await api.get("/v1/clients", headers=old)
    assert (answer.status_code, answer.json()["detail"]) == (401, "The JWT is not signed by a key of the provider.")


async def test_while_the_provider_is_away_its_keys_are_believed_for_a_while(
    api: httpx.AsyncClient, provider: OidcProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = bearer(await asyncio.to_thread(provider.ci_token))
    assert (await api.get("/v1/clients", headers=token)).status_code == 200
    provider.stop()
    assert (await api.get("/v1/clients", headers=token)).status_code == 200
    monkeypatch.setattr(provider_module, "STALE_S", 0.0)
    answer = await api.get("/v1/clients", headers=token)
    assert (answer.status_code, answer.json()["detail"]) == (
        503, "The identity provider's keys cannot be read, so nobody is let in by it.",
    )  # fmt: skip
    assert (await api.get("/v1/clients")).status_code == 200  # tokens go on
    url, cookie = await begun(api)  # the discovery document is remembered
    answer = await back(api, f"/console/oidc/callback?state={query_of(url)['state']}&code=c", cookie)
    assert answer.status_code == 503
    assert "The identity provider does not answer." in answer.text


async def test_a_provider_that_was_never_there_stops_nobody_with_a_token(
    oidc_settings: Callable[..., Settings], provider: OidcProvider
) -> None:
    token = await asyncio.to_thread(provider.ci_token)
    provider.stop()
    async with client_of(oidc_settings()) as api:
        assert (await api.get("/v1/clients")).status_code == 200
        assert (await api.get("/v1/clients", headers=bearer(token))).status_code == 503
        answer = await api.get("/console/oidc/begin")
        assert (answer.status_code, "does not answer" in answer.text) == (503, True)
        assert "location" not in answer.headers


async def test_no_secret_is_logged(
    api: httpx.AsyncClient, provider: OidcProvider, capsys: pytest.CaptureFixture[str]
) -> None:
    url, cookie = await begun(api)
    returned = await asyncio.to_thread(provider.sign_in, url, "carl")
    await back(api, returned, cookie)
    await back(api, returned, cookie)
    token = await asyncio.to_thread(provider.ci_token, "other")
    await api.get("/v1/clients", headers=bearer(token))
    written = "".join(capsys.readouterr())
    assert "a sign-in was refused" in written
    assert "a bearer token was refused" in written
    code = query_of(returned)["code"]
    for secret in (code, cookie.partition("=")[2], token, token.split(".")[2], CLIENT_SECRET):
        assert secret not in written
    assert not re.search(r"eyJ[\w-]{10,}", written)


async def test_a_pasted_jwt_opens_no_session(api: httpx.AsyncClient, provider: OidcProvider) -> None:
    token = await asyncio.to_thread(provider.ci_token)
    answer = await api.post("/console/login", data={"token": token}, headers=FROM_HERE)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
