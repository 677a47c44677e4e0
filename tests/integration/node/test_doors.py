"""Both doors, the lane and the FastAPI routes, give the same answers on a real store."""

import asyncio
import json

import pytest
from typer.testing import CliRunner

from testing.node import GATEWAY_TOKEN, key_of, node_client, rule
from tidegate.cli import app
from tidegate.contract.config import Client, Endpoint, Gateway, Plan
from tidegate.contract.credentials import secret_sha256

PAID, FREE, SUSPENDED = "tg_paid", "tg_free", "tg_suspended"
CONFIG = [
    Plan(plan="free", limits=(rule(1, "hourly", 5, algorithm="fixed_window"),)),
    Plan(
        plan="paid",
        limits=(
            rule(2, "hourly", 1000, algorithm="sliding_window"),
            rule(3, "burst", 3, algorithm="token_bucket", window_us=60_000_000, burst=3, shares={"us-east": 3}),
            rule(4, "trial", 1, algorithm="fixed_window", shadow=True),
        ),
    ),
    Plan(plan="anonymous", limits=(rule(5, "per-ip", 2, algorithm="fixed_window", scope="ip"),)),
    rule(6, "all", 900, algorithm="fixed_window", scope="global"),
    Client(client="acme", plan="free"),
    Client(client="globex", plan="paid"),
    Client(client="gone", plan="free", status="suspended"),
    key_of("acme", FREE),
    key_of("globex", PAID),
    key_of("gone", SUSPENDED),
    key_of("acme", "tg_expired", expires_at=1.0),
    Endpoint(endpoint="get-user", method="GET", path="/api/users/{id}"),
    Endpoint(endpoint="export", method="POST", path="/api/exports", cost=3),
    Endpoint(endpoint="health", method="GET", path="/health", exempt=True),
    Gateway(gateway="edge", sha256=secret_sha256(GATEWAY_TOKEN), dialect="nginx"),
]


@pytest.fixture(params=["lane", "fastapi"])
async def client(request, tmp_path, valkey_url):
    async with node_client(tmp_path, valkey_url, CONFIG, lane=request.param == "lane") as client:
        yield client


async def test_a_decision_says_all_that_the_contract_names(client):
    response = await client.post(
        "/v1/check", json={"api_key": FREE, "ip": "203.0.113.42", "method": "GET", "path": "/x"}
    )
    body = response.json()
    assert response.status_code == 200
    assert body.pop("reset_after_s") <= 3600
    assert body.pop("request_id").startswith("n1-")
    assert body == {
        "allowed": True, "client": "acme", "plan": "free", "policy": "hourly", "limit": 5, "window_s": 3600,
        "remaining": 4, "retry_after_s": None, "delay_ms": 0, "shadow_denied": [], "degraded": False,
        "region": "us-east", "revision": 1,
    }  # fmt: skip
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-ratelimit-limit"] == "5"
    assert response.headers["x-ratelimit-remaining"] == "4"
    assert response.headers["ratelimit-policy"] == '"hourly";q=5;w=3600'
    assert response.headers["ratelimit"].startswith('"hourly";r=4;t=')


async def test_a_denial_is_a_problem_with_the_wait_in_every_place(client):
    for _ in range(5):
        assert (await client.post("/v1/check", json={"api_key": FREE})).status_code == 200
    response = await client.post("/v1/check", json={"api_key": FREE})
    body = response.json()
    assert response.status_code == 429
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert body["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert (body["allowed"], body["status"], body["error"]) == (False, 429, "rate_limit_exceeded")
    assert (body["violated-policies"], body["remaining"]) == (["hourly"], 0)
    wait = str(body["retry_after"])
    assert body["retry_after_s"] <= body["retry_after"] < body["retry_after_s"] + 1
    assert response.headers["retry-after"] == wait
    assert response.headers["ratelimit"] == f'"hourly";r=0;t={wait}'
    assert body["instance"] == body["request_id"]


async def test_a_denial_consumes_nothing_and_peeking_neither(client):
    assert (await client.post("/v1/check", json={"api_key": FREE, "cost": 9})).status_code == 429
    assert (await client.post("/v1/check", json={"api_key": FREE, "cost": 0})).json()["remaining"] == 5
    never = await client.post("/v1/check", json={"api_key": FREE, "cost": 9})
    assert never.json()["retry_after_s"] is None
    assert never.json()["cause"] == "cost_above_limit"
    assert never.json()["detail"] == "The cost of 9 is above what limit 'hourly' can ever hold."
    assert "retry-after" not in never.headers


async def test_a_look_at_a_limit_of_nothing_says_so_and_not_that_its_cost_is_too_high(tmp_path, valkey_url):
    values = [Plan(plan="anonymous", limits=(rule(1, "none", 0),))]
    async with node_client(tmp_path, valkey_url, values) as client:
        look = (await client.post("/v1/check", json={"cost": 0})).json()
        asked = (await client.post("/v1/check", json={})).json()
    assert (look["cause"], look["message"]) == (
        "cost_above_limit",
        "Limit 'none' of 0 per 3600 s lets nothing pass here.",
    )
    assert asked["message"] == "The cost of 1 is above what limit 'none' can ever hold."


async def test_a_client_that_was_typed_is_asked_for_whatever_key_the_environment_has(tmp_path, valkey_url):
    async with node_client(tmp_path, valkey_url, CONFIG) as client:
        asked = ["check", "--json", "--url", str(client.base_url), "--client", "globex"]
        env = {"TIDEGATE_API_KEY": FREE}
        answers = [
            await asyncio.to_thread(CliRunner().invoke, app, [*asked, *typed], env=env)
            for typed in ([], ["--api-key", FREE])
        ]
    assert [answer.exit_code for answer in answers] == [0, 2]
    assert json.loads(answers[0].output)["client"] == "globex"
    assert "give one of them" in answers[1].output


async def test_a_denial_says_how_much_is_left_where_something_is(client):
    assert (await client.post("/v1/check", json={"api_key": FREE, "cost": 4})).status_code == 200
    for cost, left in ((2, 1), (5, 1)):
        body = (await client.post("/v1/check", json={"api_key": FREE, "cost": cost})).json()
        assert (body["cause"], body["remaining"]) == ("too_few_left", 1)
        assert body["message"] == f"Limit 'hourly' of 5 per 3600 s has {left} left, {cost} asked."
    assert (await client.post("/v1/check", json={"api_key": FREE})).status_code == 200
    for _ in range(2):
        body = (await client.post("/v1/check", json={"api_key": FREE})).json()
        assert (body["cause"], body["message"]) == ("used_up", "Limit 'hourly' of 5 per 3600 s is used up.")


async def test_a_shadow_limit_is_reported_and_stops_nobody(client):
    ask = {"api_key": PAID, "explain": True}
    assert (await client.post("/v1/check", json=ask)).json()["shadow_denied"] == []
    body = (await client.post("/v1/check", json=ask)).json()
    assert (body["allowed"], body["shadow_denied"]) == (True, ["trial"])
    assert {limit["policy"]: limit["remaining"] for limit in body["limits"]} == {
        "hourly": 998, "burst": 1, "trial": 0, "all": 898,
    }  # fmt: skip


async def test_a_denial_shows_the_longest_wait_and_hides_other_peoples_traffic(client):
    for _ in range(3):
        await client.post("/v1/check", json={"api_key": PAID})
    response = await client.post("/v1/check", json={"api_key": PAID})
    assert response.json()["violated-policies"] == ["burst"]
    assert '"all"' not in response.headers["ratelimit"]
    assert [part.split(";")[0] for part in response.headers["ratelimit"].split(", ")] == [
        '"hourly"',
        '"burst"',
        '"trial"',
    ]


async def test_an_unknown_key_falls_back_to_the_limit_of_its_address(client):
    ask = {"api_key": "tg_nobody", "ip": "203.0.113.9"}
    first = (await client.post("/v1/check", json=ask)).json()
    assert (first["client"], first["plan"], first["policy"], first["remaining"]) == (None, "anonymous", "per-ip", 1)
    assert (await client.post("/v1/check", json={"api_key": "tg_other", "ip": "203.0.113.9"})).status_code == 200
    assert (await client.post("/v1/check", json=ask)).status_code == 429
    assert (await client.post("/v1/check", json={"ip": "203.0.113.10"})).status_code == 200
    assert (await client.post("/v1/check", json={"api_key": "tg_expired", "ip": "203.0.113.9"})).status_code == 429


async def test_a_suspended_client_is_refused_with_its_reason(client):
    response = await client.post("/v1/check", json={"api_key": SUSPENDED})
    assert (response.status_code, response.json()["error"]) == (403, "client_suspended")


async def test_endpoints_cost_and_exempt(client):
    ask = {"api_key": FREE, "method": "POST", "path": "/api/exports"}
    assert (await client.post("/v1/check", json=ask)).json()["remaining"] == 2
    assert (await client.post("/v1/check", json={**ask, "method": "post"})).status_code == 429
    exempt = await client.post("/v1/check", json={"api_key": FREE, "method": "GET", "path": "/health"})
    assert (exempt.json()["policy"], "x-ratelimit-limit" in exempt.headers) == (None, False)


async def test_a_batch_keeps_its_order_and_a_bad_item_spoils_no_other(client):
    checks = [{"api_key": FREE}, {"api_key": FREE, "cost": -1}, {"surprise": 1}, 7, {"api_key": PAID}, {"client": "no"}]
    response = await client.post("/v1/check/batch", json={"checks": checks})
    decisions = response.json()["decisions"]
    assert response.status_code == 200
    assert [one.get("client") for one in decisions] == ["acme", None, None, None, "globex", None]
    assert [one["error"]["errors"][0]["field"] for one in decisions if "error" in one] == [
        "cost", "surprise", "(body)", "client",
    ]  # fmt: skip
    for size in (0, 1001):
        refused = await client.post("/v1/check/batch", json={"checks": [{"api_key": FREE}] * size})
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "checks")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"{", 400, None),
        (b"\xff\xfe", 400, None),
        (b'{"api_key": "k", "colour": 1}', 422, "colour"),
        (b'{"cost": -1}', 422, "cost"),
        (b'{"cost": NaN}', 400, None),
        (b'{"cost": 1.5}', 422, "cost"),
        (b'{"cost": 1' + b"0" * 30 + b"}", 422, "cost"),
        (b'{"ip": "fe80::1%eth0"}', 422, "ip"),
        (b'{"ip": "example.org"}', 422, "ip"),
        (b'{"api_key": "' + b"k" * 300 + b'"}', 422, "api_key"),
        (b'{"api_key": "a\\u0000b"}', 422, "api_key"),
        (b'{"client": "nobody"}', 422, "client"),
        (b'{"endpoint": "nowhere"}', 422, "endpoint"),
        (b'{"client": "acme", "api_key": "k"}', 422, "client"),
        (b'{"attributes": {"a": "' + b"v" * 200 + b'"}}', 422, "attributes.a"),
        (b'{"attributes": {"a": 1}}', 422, "attributes[...]"),
        (b"[]", 422, "(body)"),
        (b'{"path": "' + b"p" * 70_000 + b'"}', 413, None),
    ],
)
async def test_bad_input_is_named_and_decides_nothing(client, body, status, field):
    response = await client.post("/v1/check", content=body)
    problem = response.json()
    assert (response.status_code, problem["status"]) == (status, status)
    assert response.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in problem.get("errors", [])] == ([field] if field else [])
    assert (await client.post("/v1/check", json={"api_key": FREE, "cost": 0})).json()["remaining"] == 5


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/check", 405), ("GET", "/v1/nothing", 404)])
async def test_other_paths_and_methods_are_problems(client, method, path, status):
    response = await client.request(method, path)
    assert (response.status_code, response.json()["status"]) == (status, status)


async def test_exactly_the_limit_passes_however_many_ask_at_once(client):
    answers = await asyncio.gather(*(client.post("/v1/check", json={"api_key": FREE}) for _ in range(40)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 35


async def test_nginx_gets_403_with_the_true_answer_in_headers(client):
    headers = {"x-tidegate-token": GATEWAY_TOKEN, "x-original-uri": "/", "x-original-method": "GET", "x-api-key": FREE}
    for _ in range(5):
        response = await client.get("/v1/authorize?deny_status=403", headers=headers)
        assert (response.status_code, response.content) == (200, b"")
        assert "ratelimit" in response.headers
    denied = await client.get("/v1/authorize?deny_status=403", headers=headers)
    assert (denied.status_code, denied.headers["x-rl-status"]) == (403, "429")
    assert '"rate_limit_exceeded"' in denied.headers["x-rl-body"]
    assert "retry-after" in denied.headers
    two_keys = headers | {"authorization": "Bearer tg_other"}
    refused = await client.get("/v1/authorize?deny_status=403", headers=two_keys)
    assert (refused.status_code, refused.headers["x-rl-status"]) == (403, "401")
    stranger = await client.get("/v1/authorize?deny_status=403", headers=headers | {"x-tidegate-token": "tgg_no"})
    assert (stranger.status_code, stranger.headers["x-rl-status"]) == (403, "401")


async def test_a_gateways_request_id_counts_once_and_nobody_elses_counts_at_all(client):
    headers = {"x-original-uri": "/", "x-original-method": "GET", "x-api-key": FREE, "x-request-id": "r-1"}
    for _ in range(3):
        await client.get("/v1/authorize", headers={**headers, "x-tidegate-token": GATEWAY_TOKEN})
    assert (await client.post("/v1/check", json={"api_key": FREE, "cost": 0})).json()["remaining"] == 4
    for _ in range(3):
        await client.get("/v1/authorize", headers=headers)
    assert (await client.post("/v1/check", json={"api_key": FREE, "cost": 0})).json()["remaining"] == 1
    told = {"x-tidegate-token": GATEWAY_TOKEN, "x-tidegate-attribute-tenant": "another"}
    for _ in range(2):
        await client.get("/v1/authorize", headers=headers | told)
    assert (await client.post("/v1/check", json={"api_key": FREE, "cost": 0})).json()["remaining"] == 0


async def test_a_request_id_that_comes_again_answers_no_other_request(client):
    headers = {
        "x-original-uri": "/",
        "x-original-method": "GET",
        "x-request-id": "r-2",
        "x-tidegate-token": GATEWAY_TOKEN,
    }
    for _ in range(7):
        last = await client.get("/v1/authorize", headers={**headers, "x-api-key": FREE, "x-request-id": "r" * 129})
    assert last.status_code == 429
    passed = await client.get("/v1/authorize", headers=headers)
    assert passed.status_code == 200
    assert (await client.get("/v1/authorize", headers={**headers, "x-api-key": FREE})).status_code == 429
    assert (await client.get("/v1/authorize", headers={**headers, "x-original-method": "POST"})).status_code == 200


async def test_forward_auth_tells_end_users_no_more_than_they_need(client):
    for _ in range(5):
        await client.get("/v1/authorize/x", headers={"x-api-key": FREE})
    denied = await client.get("/v1/authorize/x?deny_status=403", headers={"x-api-key": FREE})
    assert denied.status_code == 429
    assert denied.json().keys() == {
        "type", "title", "status", "detail", "instance", "violated-policies", "error", "cause", "message",
        "retry_after",
    }  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"])
async def test_forward_auth_takes_any_method(client, method):
    for path in ("/v1/authorize/api/users/7", "/v1/authorize/api/users/7%0A8"):
        assert (await client.request(method, path, headers={"x-api-key": PAID})).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-api-key": "k" * 300}, 401),
        ({"x-api-key": "tg_first", "authorization": "Bearer tg_second"}, 401),
        ({"x-forwarded-for": "not-an-address"}, 403),
        ({"x-api-key": SUSPENDED}, 403),
        ({"x-tidegate-token": "tgg_wrong"}, 401),
    ],
)
async def test_what_an_end_client_sends_wrong_is_a_refusal(client, headers, status):
    response = await client.get("/v1/authorize/x", headers=headers)
    assert response.status_code == status
    assert all(value not in response.text for value in headers.values())


async def test_health_readiness_status_and_metrics(client):
    await client.post("/v1/check", json={"api_key": FREE})
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert (await client.get("/readyz")).json() == {"ready": True, "revision": 1, "degraded": False, "agents": 0}
    status = (await client.get("/v1/status")).json()
    assert (status["region"], status["revision"], status["store"]["usable"]) == ("us-east", 1, True)
    metrics = (await client.get("/metrics")).text
    assert 'rate_limit_checks_total{result="allowed"} 1.0' in metrics
    assert 'rate_limit_check_duration_seconds_bucket{le="+Inf"} 1.0' in metrics


@pytest.mark.parametrize(
    "member", [{"client": "acme"}, {"endpoint": "health"}, {"explain": True}, {"cost": 2}, {"attributes": {"a": "b"}}]
)
async def test_only_a_gateway_may_speak_for_others(tmp_path, valkey_url, member):
    async with node_client(tmp_path, valkey_url, CONFIG, trust="token") as client:
        refused = await client.post("/v1/check", json=member)
        assert (refused.status_code, refused.json()["errors"][0]["field"]) == (403, next(iter(member)))
        token = {"x-tidegate-token": GATEWAY_TOKEN}
        assert (await client.post("/v1/check", json=member, headers=token)).status_code == 200
        assert (await client.post("/v1/check", json={"api_key": FREE})).status_code == 200


async def test_a_required_token_is_required(tmp_path, valkey_url):
    async with node_client(tmp_path, valkey_url, CONFIG, trust="required") as client:
        for path in ("/v1/check", "/v1/check/batch", "/v1/authorize"):
            assert (await client.post(path, json={})).status_code == 401
            assert (await client.post(path, json={}, headers={"x-tidegate-token": "tgg_no"})).status_code == 401
        allowed = await client.post("/v1/check", json={"api_key": FREE}, headers={"x-tidegate-token": GATEWAY_TOKEN})
        assert allowed.status_code == 200


async def test_rotating_through_a_sites_networks_ends_at_the_sites_limit(client):
    answers = [await client.post("/v1/check", json={"ip": f"2001:db8:1:{number:x}::1"}) for number in range(40)]
    assert [answer.status_code for answer in answers] == [200] * 32 + [429] * 8
    other_site = await client.post("/v1/check", json={"ip": "2001:db8:2::1"})
    assert other_site.status_code == 200
