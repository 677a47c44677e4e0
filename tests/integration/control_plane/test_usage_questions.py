"""What a client has used, asked of the regions' nodes: whichever replica they wait at, and what no node would say."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from control_plane.settings import Settings
from testing.control_plane import RunningControlPlane, running
from tests.integration.control_plane.conftest import ADMIN_TOKEN
from tests.integration.control_plane.usage_batches import batch, cell, ship
from tidegate.contract.questions import LimitFigure, NodeAnswer, PeerExchange, Question, Questions, RegionExchange

PATIENCE_S = 120
LIMITS = [{"name": f"limit-{number}", "limit": 1000, "window_s": 3600} for number in range(90)]


async def prepare(served: RunningControlPlane) -> None:
    (await served.admin.put("/v1/plans/free", json={"limits": LIMITS})).raise_for_status()
    (await served.admin.put("/v1/clients/acme", json={"plan": "free"})).raise_for_status()


def line(served: RunningControlPlane, credential: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {credential}"}
    return httpx.AsyncClient(base_url=served.url, headers=headers, trust_env=False, timeout=15)


Answers = Callable[[Question], Awaitable[NodeAnswer]]


@asynccontextmanager
async def answering(served: RunningControlPlane, credential: str, answer: Answers) -> AsyncIterator[None]:
    """A node that waits for questions and answers each, until the block ends."""

    async def work() -> None:
        async with line(served, credential) as client:
            while True:
                got = await client.get("/internal/v1/questions", params={"wait": 10})
                for question in msgspec.json.decode(got.raise_for_status().content, type=Questions).questions:
                    content = msgspec.json.encode(await answer(question))
                    (await client.post("/internal/v1/answers", content=content)).raise_for_status()

    node = asyncio.create_task(work())
    try:
        yield
        if node.done():
            await node
    finally:
        node.cancel()
        await asyncio.wait({node})


async def of_limits(question: Question) -> NodeAnswer:
    """Seven units of every limit are used; the database of a test numbers them from 1."""
    assert (question.client, question.about) == ("acme", "limits")
    figures = tuple(LimitFigure(rule_id, 1000, 7, 993, 60.0) for rule_id in range(1, 251))
    return NodeAnswer(id=question.id, node="us-east-1", revision=3, figures=figures)


async def limits_once(
    served: RunningControlPlane, holds: Callable[[list[dict[str, Any]]], bool]
) -> list[dict[str, Any]]:
    """The client's limits, asked until ``holds``: on a busy machine a second is short, and who has just begun does not
    hear questions yet.
    """
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await served.admin.get("/v1/clients/acme/limits")
            found: list[dict[str, Any]] = answer.raise_for_status().json()["limits"]
            if holds(found):
                return found


def told(region: str) -> Callable[[list[dict[str, Any]]], bool]:
    return lambda found: found[0]["regions"][region]["used"] is not None


async def test_a_region_that_answers_has_figures_and_a_silent_one_a_reason(served: RunningControlPlane) -> None:
    await prepare(served)
    await served.add_region("eu-west")
    async with answering(served, served.credentials["us-east"], of_limits):
        found = await limits_once(served, told("us-east"))
    assert len(found) == 90
    for limit in found:
        east, west = limit["regions"]["us-east"], limit["regions"]["eu-west"]
        assert (east["used"], east["remaining"], east["reset_s"], east["reason"]) == (7, 993, 60.0, None)
        assert west["used"] is None
        assert west["reason"] == "no agent of this region answered within 1 s"


async def test_question_and_answer_find_their_way_between_replicas(
    served: RunningControlPlane, make_settings: Callable[..., Settings]
) -> None:
    await prepare(served)
    async with (
        running(make_settings(), ADMIN_TOKEN) as other,
        answering(other, served.credentials["us-east"], of_limits),
    ):
        found = await limits_once(served, told("us-east"))
    assert found[0]["regions"]["us-east"]["used"] == 7


async def test_live_usage_has_what_waited_in_the_stream(served: RunningControlPlane) -> None:
    await prepare(served)
    await ship(served, batch(1, cell("acme", 3)))
    waiting = batch(2, cell("acme", 4), cell("zeta", 10))

    async def of_usage(question: Question) -> NodeAnswer:
        assert (question.client, question.about) == ("", "usage")
        assert (await ship(served, waiting)).status_code == 200
        return NodeAnswer(id=question.id, node="us-east-1", revision=3)

    query = {"live": "true", "group_by": "client"}
    before = (await served.admin.get("/v1/clients/acme/usage", params={"group_by": "client"})).json()
    assert (before["items"][0]["allowed"], before["live"]) == (3, None)
    async with answering(served, served.credentials["us-east"], of_usage), asyncio.timeout(PATIENCE_S):
        while (mine := (await served.admin.get("/v1/clients/acme/usage", params=query)).json())["live"]["us-east"]:
            assert mine["live"] == {"us-east": "no agent of this region answered within 1 s"}
        everybody = (await served.admin.get("/v1/usage", params=query)).json()
    assert [item["allowed"] for item in mine["items"]] == [7]
    assert [(item["client"], item["allowed"]) for item in everybody["items"]] == [("acme", 7), ("zeta", 10)]


async def of_exchange(question: Question) -> NodeAnswer:
    assert question.exchange
    peers = (PeerExchange("eu-west", 0.25, False, 50, 7), PeerExchange("ap", None, True))
    exchange = RegionExchange(peers, shares_proven=True, overshoots=2, most_over_units=9)
    return NodeAnswer(id=question.id, node="us-east-agent", revision=3, exchange=exchange)


async def of_an_agent_before(question: Question) -> NodeAnswer:
    return NodeAnswer(id=question.id, node="us-east-agent", revision=3, error="the client is not known here")


async def test_regions_say_how_they_stand_to_each_other(served: RunningControlPlane) -> None:
    await served.add_region("eu-west")

    async def told(answer: Answers) -> dict[str, Any]:
        async with answering(served, served.credentials["us-east"], answer), asyncio.timeout(PATIENCE_S):
            while True:
                found = (await served.admin.get("/v1/exchange")).raise_for_status().json()["items"]
                if found[1]["agent"] is not None:
                    assert found[0]["reason"] == "no agent of this region answered within 1 s"
                    return dict(found[1])

    found = await told(of_exchange)
    assert (found["region"], found["agent"], found["reason"]) == ("us-east", "us-east-agent", None)
    assert (found["shares_proven"], found["overshoots"], found["most_over_units"]) == (True, 2, 9)
    heard, silent = found["peers"]
    assert (heard["region"], heard["staleness_s"]) == ("eu-west", 0.25)
    assert (heard["units_given"], heard["units_received"]) == (50, 7)
    assert (silent["unreachable"], silent["staleness_s"]) == (True, None)
    assert (await told(of_an_agent_before))["reason"] == "its agent is of a version that does not report it"


async def test_nothing_to_ask_is_an_empty_answer_and_what_no_node_says_is_refused(served: RunningControlPlane) -> None:
    async with line(served, served.credentials["us-east"]) as client:
        quiet = await client.get("/internal/v1/questions", params={"wait": 0.1})
        assert quiet.json() == {"questions": []}
        good = {"id": "0" * 32, "node": "n", "revision": 1}
        late = await client.post("/internal/v1/answers", json=good)
        assert late.status_code == 204, "nobody waits for it: no harm"
        for wrong in (
            b"", b"x", b"[" * 100_000,
            msgspec.json.encode(good | {"id": "x"}), msgspec.json.encode(good | {"node": "a b"}),
            msgspec.json.encode(good | {"figures": [[1, 1, -1, 0, 0]]}),
            msgspec.json.encode(good | {"figures": [[1, 1, 1, 0, 0]] * 251}),
            msgspec.json.encode(good | {"error": "\x07"}),
        ):  # fmt: skip
            refused = await client.post("/internal/v1/answers", content=wrong)
            assert refused.status_code == 422, wrong[:50]
        assert (await client.get("/internal/v1/questions", params={"wait": 31})).status_code == 422
