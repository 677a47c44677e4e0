"""Leases and reservations over HTTP, on a real store: taken once, returned once, never more than the limit."""

import asyncio
import time

import pytest

from testing.agent import node_with_agent
from testing.node import GATEWAY_TOKEN, REGION_CREDENTIAL, key_of, node_client, rule
from tidegate.contract.config import Client, Endpoint, Gateway, Plan, Region
from tidegate.contract.credentials import make_credential, region_public_key, secret_sha256

WINDOWS = ("fixed_window", "sliding_window")
ALL = (*WINDOWS, "sliding_log", "token_bucket", "leaky_bucket")
KEY = "tg_acme"


def config(limit=100, **members):
    return [
        Plan(plan="p", limits=(rule(1, "hourly", limit, **members),)),
        Client(client="acme", plan="p"),
        key_of("acme", KEY),
        Endpoint(endpoint="export", method="POST", path="/export", cost=5),
    ]


async def remaining(node) -> int:
    return (await node.post("/v1/check", json={"api_key": KEY, "cost": 0})).json()["remaining"]


async def lease(node, units, **members):
    response = await node.post("/v1/leases", json={"api_key": KEY, "units": units, **members})
    assert response.status_code == 200, response.text
    return response.json()


async def give_back(node, *returns):
    body = {"returns": [{"lease": text, "unused": unused} for text, unused in returns]}
    response = await node.post("/v1/leases/return", json=body)
    assert response.status_code == 200, response.text
    return response.json()["returned"]


@pytest.mark.parametrize("algorithm", [*WINDOWS, "token_bucket"])
async def test_what_a_lease_does_not_spend_goes_back_once(tmp_path, store_url, algorithm):
    async with node_client(tmp_path, store_url, config(algorithm=algorithm)) as node:
        taken = await lease(node, 1_000)
        assert (taken["granted"], taken["allowed"], taken["limit"], taken["remaining"]) == (10, True, 100, 90)
        assert 0 < taken["expires_in_s"] <= 1
        assert await remaining(node) == 90
        assert await give_back(node, (taken["lease"], 7)) == [7]
        assert await give_back(node, (taken["lease"], 7)) == [0]
        assert await remaining(node) == 97


async def test_no_more_goes_back_than_was_taken(tmp_path, valkey_url):
    async with node_client(tmp_path, valkey_url, config()) as node:
        taken = await lease(node, 4)
        assert await give_back(node, (taken["lease"], 500)) == [4]
        assert await remaining(node) == 100


async def test_an_expired_lease_is_lost(tmp_path, valkey_url):
    async with node_client(tmp_path, valkey_url, config()) as node:
        taken = await lease(node, 4, ttl_s=0.001)
        deadline = asyncio.get_running_loop().time() + taken["expires_in_s"]
        while asyncio.get_running_loop().time() <= deadline:
            await asyncio.sleep(0.002)
        assert await give_back(node, (taken["lease"], 4)) == [0]
        assert await remaining(node) == 96


async def test_a_renewal_returns_the_lease_before_it(tmp_path, valkey_url):
    async with node_client(tmp_path, valkey_url, config()) as node:
        first = await lease(node, 8)
        second = await lease(node, 8, returns=[{"lease": first["lease"], "unused": 5}])
        assert second["granted"] == 8
        assert await remaining(node) == 100 - 3 - 8


async def test_leases_shrink_near_the_limit_and_end_in_a_denial(tmp_path, valkey_url):
    async with node_client(tmp_path, valkey_url, config(limit=100)) as node:
        await node.post("/v1/check", json={"api_key": KEY, "cost": 92})
        granted = []
        while True:
            response = await node.post("/v1/leases", json={"api_key": KEY, "units": 10})
            if response.status_code == 429:
                break
            granted.append(response.json()["granted"])
        assert sum(granted) == 8
        assert granted[0] == 4
        assert granted[-1] == 1
        denied = response.json()
        assert (denied["granted"], denied["lease"], denied["error"]) == (0, None, "rate_limit_exceeded")
        assert int(response.headers["retry-after"]) > 0


async def test_a_route_with_a_cost_takes_it_for_every_unit(tmp_path, valkey_url):
    async with node_client(tmp_path, valkey_url, config()) as node:
        taken = await lease(node, 10, method="POST", path="/export")
        assert taken["granted"] == 2
        assert await remaining(node) == 90
        assert await give_back(node, (taken["lease"], 1)) == [1]
        assert await remaining(node) == 95


async def test_limits_in_shadow_are_leased_as_they_would_be_if_they_denied(tmp_path, valkey_url):
    async with node_client(tmp_path, valkey_url, config(shadow=True)) as node:
        for left in range(90, -1, -10):
            taken = await lease(node, 1_000)
            assert (taken["granted"], taken["remaining"], taken["shadow_denied"]) == (10, left, [])
        taken = await lease(node, 1_000)
        assert (taken["granted"], taken["shadow_denied"]) == (10, ["hourly"])


@pytest.mark.parametrize("algorithm", ["sliding_log", "leaky_bucket"])
async def test_limits_that_date_each_request_cannot_be_leased(tmp_path, valkey_url, algorithm):
    async with node_client(tmp_path, valkey_url, config(algorithm=algorithm)) as node:
        full = await remaining(node)
        answer = await lease(node, 10)
        assert (answer["granted"], answer["lease"]) == (0, None)
        assert "hourly" in answer["reason"]
        assert await remaining(node) == full


async def test_a_lease_ends_with_its_window(tmp_path, valkey_url):
    second = config(limit=1_000, algorithm="fixed_window", window_us=500_000)
    async with node_client(tmp_path, valkey_url, second) as node:
        for _ in range(5):
            taken = await lease(node, 1, ttl_s=10)
            assert taken["expires_in_s"] <= taken["reset_after_s"] <= 0.5


async def test_without_a_limit_everything_asked_for_is_granted(tmp_path, valkey_url):
    nothing = [Plan(plan="p"), Client(client="acme", plan="p"), key_of("acme", KEY)]
    async with node_client(tmp_path, valkey_url, nothing) as node:
        taken = await lease(node, 5_000)
        assert (taken["granted"], taken["limit"]) == (5_000, None)


@pytest.mark.parametrize("mode", ["regional", "shared", "strict"])
async def test_leases_and_checks_together_admit_exactly_the_limit(tmp_path, valkey_url, mode):
    async with node_with_agent(tmp_path, valkey_url, config(limit=200, mode=mode)) as node:
        admitted = 0

        async def worker(nth: int) -> None:
            nonlocal admitted
            for turn in range(100):
                if (nth + turn) % 2:
                    response = await node.post("/v1/check", json={"api_key": KEY})
                    admitted += response.status_code == 200
                    if response.status_code == 429:
                        return
                else:
                    taken = (await node.post("/v1/leases", json={"api_key": KEY, "units": 6})).json()
                    spent = taken["granted"] // 2
                    admitted += spent
                    if taken["lease"] is not None:
                        back = await give_back(node, (taken["lease"], taken["granted"] - spent))
                        admitted += taken["granted"] - spent - back[0]

        await asyncio.gather(*(worker(nth) for nth in range(8)))
        assert 150 < admitted <= 200
        assert await remaining(node) == 200 - admitted


@pytest.mark.parametrize("algorithm", ALL)
async def test_a_reservation_counts_at_its_true_cost(tmp_path, store_url, algorithm):
    async with node_client(tmp_path, store_url, config(algorithm=algorithm)) as node:
        for estimate, cost in ((40, 10), (40, 0), (10, 30), (20, 20)):
            left = await remaining(node)
            held = (await node.post("/v1/reservations", json={"api_key": KEY, "cost": estimate})).json()
            assert (held["reserved"], held["remaining"]) == (estimate, left - estimate)
            settlement = {"reservation": held["reservation"], "cost": cost}
            first = (await node.post("/v1/reservations/settle", json=settlement)).json()
            again = (await node.post("/v1/reservations/settle", json=settlement)).json()
            difference = {"returned": max(0, estimate - cost), "charged": max(0, cost - estimate)}
            assert first == {**difference, "repeated": False}
            assert again == {**difference, "repeated": True}
            assert await remaining(node) == left - cost
            other = await node.post("/v1/reservations/settle", json={**settlement, "cost": cost + 1})
            assert (other.status_code, other.json()["error"]) == (409, "reservation_ended")
            assert await remaining(node) == left - cost


@pytest.mark.parametrize(("cost", "counts"), [(2, 0), (25, 15)])
async def test_a_reservation_that_left_its_log_counts_by_what_it_cost_beyond_the_estimate(
    tmp_path, valkey_url, cost, counts
):
    async with node_client(tmp_path, valkey_url, config(algorithm="sliding_log", window_us=2_000_000)) as node:
        held = (await node.post("/v1/reservations", json={"api_key": KEY, "cost": 10})).json()
        while await remaining(node) < 100:
            await asyncio.sleep(0.01)
        settlement = {"reservation": held["reservation"], "cost": cost}
        answers = [await node.post("/v1/reservations/settle", json=settlement) for _ in range(2)]
        assert [answer.json()["repeated"] for answer in answers] == [False, True]
        assert await remaining(node) == 100 - counts


@pytest.mark.parametrize(("limit", "left"), [(1_000, 971), (40, 11)])
async def test_what_a_reservation_cost_beyond_its_estimate_joins_a_queue_that_has_another_length_by_now(
    tmp_path, valkey_url, limit, left
):
    queue = {"algorithm": "leaky_bucket", "window_us": 86_400_000_000}
    async with node_client(tmp_path, valkey_url, config(**queue)) as node:
        held = (await node.post("/v1/reservations", json={"api_key": KEY, "cost": 20})).json()
    async with node_client(tmp_path, valkey_url, config(limit, **queue)) as node:
        settlement = {"reservation": held["reservation"], "cost": 30}
        assert (await node.post("/v1/reservations/settle", json=settlement)).json()["charged"] == 10
        assert await remaining(node) == left


async def test_a_reservation_under_many_limits_can_be_settled_however_long_its_text_is(tmp_path, valkey_url):
    limits = [rule(number, f"l{number}", 100, scope="client+attribute:tenant") for number in range(1, 41)]
    values = [Plan(plan="p", limits=tuple(limits)), Client(client="acme", plan="p")]
    asked = {"client": "acme", "attributes": {"tenant": "|" * 128}, "cost": 10}
    async with node_client(tmp_path, valkey_url, values) as node:
        held = (await node.post("/v1/reservations", json=asked)).json()
        settlement = {"reservation": held["reservation"], "cost": 30}
        response = await node.post("/v1/reservations/settle", json=settlement)
        assert response.json() == {"returned": 0, "charged": 20, "repeated": False}
        told = (await node.post("/v1/check", json={**asked, "cost": 0, "explain": True})).json()
        assert {limit["remaining"] for limit in told["limits"]} == {70}


async def test_an_estimate_that_does_not_fit_is_denied_and_takes_nothing(tmp_path, valkey_url):
    async with node_client(tmp_path, valkey_url, config()) as node:
        response = await node.post("/v1/reservations", json={"api_key": KEY, "cost": 101})
        assert (response.status_code, response.json()["reservation"]) == (429, None)
        assert await remaining(node) == 100


async def test_what_nobody_signed_is_refused_by_name(tmp_path, valkey_url):
    async with node_client(tmp_path, valkey_url, config()) as node:
        taken = await lease(node, 4)
        held = (await node.post("/v1/reservations", json={"api_key": KEY, "cost": 4})).json()["reservation"]
        turned = taken["lease"][:-6] + ("A" if taken["lease"][-6] != "A" else "B") + taken["lease"][-5:]
        for text in ("x", "é", turned, held):
            response = await node.post("/v1/leases/return", json={"returns": [{"lease": text, "unused": 1}]})
            assert response.status_code == 422, response.text
            assert response.json()["errors"][0]["field"] == "returns[0].lease"
        response = await node.post("/v1/reservations/settle", json={"reservation": taken["lease"], "cost": 1})
        assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "reservation")
        both = {"returns": [{"lease": taken["lease"], "unused": 1}, {"lease": "x", "unused": 1}]}
        for path, body in (("/v1/leases/return", both), ("/v1/leases", {"api_key": KEY, "units": 1, **both})):
            response = await node.post(path, json=body)
            assert (response.status_code, response.json()["errors"][0]["field"]) == (422, "returns[1].lease")
        assert await remaining(node) == 100 - 4 - 4, "none of them went back"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/v1/leases", {"api_key": KEY, "units": 0}, "units"),
        ("/v1/leases", {"api_key": KEY, "units": 1, "ttl_s": 11}, "ttl_s"),
        ("/v1/leases", {"api_key": KEY, "client": "acme", "units": 1}, "client"),
        ("/v1/leases", {"api_key": KEY, "units": 1, "cost": 2}, "cost"),
        ("/v1/leases", {"client": "nobody", "units": 1}, "client"),
        ("/v1/leases", {"ip": "fe80::1%eth0", "units": 1}, "ip"),
        ("/v1/reservations", {"api_key": KEY}, "cost"),
        ("/v1/reservations", {"api_key": KEY, "cost": -1}, "cost"),
        ("/v1/leases/return", {"returns": []}, "returns"),
    ],
)
async def test_bad_input_is_named(tmp_path, valkey_url, path, body, field):
    async with node_client(tmp_path, valkey_url, config()) as node:
        response = await node.post(path, json=body)
        assert response.status_code == 422, response.text
        assert [error["field"] for error in response.json()["errors"]] == [field]


async def test_leases_need_who_may_speak_for_clients(tmp_path, valkey_url):
    gateway = Gateway(sha256=secret_sha256(GATEWAY_TOKEN), gateway="edge")
    async with node_client(tmp_path, valkey_url, [*config(), gateway], trust="token") as node:
        body = {"api_key": KEY, "units": 1}
        assert (await node.post("/v1/leases", json=body)).status_code == 401
        headers = {"X-Tidegate-Token": GATEWAY_TOKEN}
        assert (await node.post("/v1/leases", json=body, headers=headers)).status_code == 200


async def test_without_the_store_nothing_is_leased(tmp_path, start_store):
    store = start_store()
    async with node_client(tmp_path, store.url, config()) as node:
        taken = await lease(node, 4)
        store.child.kill()
        response = await node.post("/v1/leases", json={"api_key": KEY, "units": 1})
        assert (response.status_code, response.json()["error"]) == (503, "store_unavailable")
        body = {"returns": [{"lease": taken["lease"], "unused": 1}]}
        assert (await node.post("/v1/leases/return", json=body)).status_code == 503


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_log", "token_bucket"])
async def test_a_route_without_a_cost_takes_nothing_whatever_is_leased_or_settled(tmp_path, valkey_url, algorithm):
    free = Endpoint(endpoint="free", method="GET", path="/free", cost=0)
    async with node_client(tmp_path, valkey_url, [*config(algorithm=algorithm), free]) as node:
        taken = await lease(node, 10, endpoint="free")
        assert (taken["granted"], taken["lease"], taken["remaining"]) == (10, None, 100)
        held = (await node.post("/v1/reservations", json={"api_key": KEY, "endpoint": "free", "cost": 5})).json()
        settlement = {"reservation": held["reservation"], "cost": 9}
        assert (await node.post("/v1/reservations/settle", json=settlement)).status_code == 200
        assert await remaining(node) == 100


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window", "sliding_log", "token_bucket"])
async def test_a_reservation_under_a_strict_limit_settles_by_shares_that_came_after_it(tmp_path, valkey_url, algorithm):
    values = config(algorithm=algorithm, mode="strict")
    async with node_with_agent(tmp_path, valkey_url, values) as older:
        held = [await older.post("/v1/reservations", json={"api_key": KEY, "cost": 20}) for _ in range(2)]
        async with node_with_agent(tmp_path, valkey_url, values, revision=2) as newer:
            for answer, cost, left in zip(held, (30, 10), (50, 60), strict=True):
                settlement = {"reservation": answer.json()["reservation"], "cost": cost}
                if cost > 20:  # a node that has not heard of them loses no unit: whoever settles is to ask another
                    response = await older.post("/v1/reservations/settle", json=settlement)
                    assert (response.status_code, response.json()["error"]) == (503, "store_unavailable")
                assert (await newer.post("/v1/reservations/settle", json=settlement)).status_code == 200
                assert await remaining(newer) == left


@pytest.mark.parametrize("algorithm", ["fixed_window", "sliding_window", "token_bucket"])
async def test_a_lease_under_a_strict_limit_goes_back_though_shares_changed_meanwhile(tmp_path, valkey_url, algorithm):
    values = config(algorithm=algorithm, mode="strict")
    async with node_with_agent(tmp_path, valkey_url, values) as older:
        taken = [await lease(older, 10, ttl_s=10) for _ in range(2)]
        async with node_with_agent(tmp_path, valkey_url, values, revision=2) as newer:
            assert await give_back(newer, (taken[0]["lease"], 7)) == [7]
            # a bucket fills by its share, which a node must know; what a window took is known without
            others = 0 if algorithm == "token_bucket" else 5
            assert await give_back(older, (taken[1]["lease"], 5)) == [others]
            assert await remaining(newer) == 87 + others


async def test_holds_go_on_while_the_regions_credential_is_rotated(tmp_path, valkey_url):
    """Until its end the credential before works beside the new one: nodes are started again one by one."""
    renewed = make_credential("region", bytes(range(2, 34)))

    def told(earlier_until):
        keys = {region_public_key(REGION_CREDENTIAL): earlier_until}
        return [*config(), Region(region="us-east", public_key=region_public_key(renewed), public_keys=keys)]

    async with node_client(tmp_path, valkey_url, config()) as node:
        unannounced = await lease(node, 4, ttl_s=10)
    async with node_client(tmp_path, valkey_url, told(time.time() + 60)) as before:
        async with node_client(tmp_path, valkey_url, told(time.time() + 60), region_credential=renewed) as after:
            for one, other in ((before, after), (after, before)):
                taken = await lease(one, 4, ttl_s=10)
                assert await give_back(other, (taken["lease"], 4)) == [4]
            assert await give_back(before, (unannounced["lease"], 4)) == [4]
        taken = await lease(before, 4, ttl_s=10)
    async with node_client(tmp_path, valkey_url, told(time.time() - 1), region_credential=renewed) as late:
        body = {"returns": [{"lease": taken["lease"], "unused": 4}]}
        assert (await late.post("/v1/leases/return", json=body)).status_code == 422


@pytest.mark.parametrize("algorithm", ["fixed_window", "token_bucket"])
async def test_a_strict_limit_that_went_keeps_no_other_from_its_settlement(tmp_path, valkey_url, algorithm):
    stays = config()
    went = rule(2, "exact", 100, algorithm=algorithm, mode="strict")
    both = [Plan(plan="p", limits=(*stays[0].limits, went)), *stays[1:]]
    async with node_with_agent(tmp_path, valkey_url, both) as older:
        held = [await older.post("/v1/reservations", json={"api_key": KEY, "cost": 20}) for _ in range(2)]
    async with node_with_agent(tmp_path, valkey_url, stays, revision=2) as newer:
        for answer, cost, left in zip(held, (30, 10), (50, 60), strict=True):
            settlement = {"reservation": answer.json()["reservation"], "cost": cost}
            assert (await newer.post("/v1/reservations/settle", json=settlement)).status_code == 200
            assert await remaining(newer) == left


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"client": "acme", "api_key": KEY}, "client"),
        ({"client": "acme", "endpoint": "export", "path": "/export"}, "endpoint"),
        ({"client": "ac\0me"}, "client"),
        ({"client": "acme", "method": "GET", "path": "/\0"}, "path"),
        ({"client": "acme", "attributes": {"tier": "x" * 300}}, "attributes.tier"),
    ],
    ids=["two callers", "two routes", "NUL in a name", "NUL in a path", "long attribute"],
)
async def test_whatever_is_asked_is_refused_alike(tmp_path, valkey_url, members, field):
    denial = {"denials": [{"client": "acme", "requests": 1, "cost": 1}, {**members, "requests": 1, "cost": 1}]}
    asked = {
        "/v1/check": (members, field),
        "/v1/leases": ({**members, "units": 1}, field),
        "/v1/reservations": ({**members, "cost": 1}, field),
        "/v1/denials": (denial, f"denials[1].{field}"),
    }
    async with node_client(tmp_path, valkey_url, config()) as node:
        for path, (body, at) in asked.items():
            answer = await node.post(path, json=body)
            assert (answer.status_code, [one["field"] for one in answer.json()["errors"]]) == (422, [at]), path
