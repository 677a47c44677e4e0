"""What a client has used, asked of the regions' nodes: whichever replica they wait at, and what no node would say."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import msgspec

from contract.questions import LimitFigure, NodeAnswer, Questions
from control_plane.settings import Settings
from tests.integration.control_plane.conftest import ADMIN_TOKEN
from tests.integration.control_plane.running import RunningControlPlane, running

LIMITS = [{"name": f"limit-{number}", "limit": 1000, "window_s": 3600} for number in range(90)]


async def prepare(served: RunningControlPlane) -> None:
    (await served.admin.put("/v1/plans/free", json={"limits": LIMITS})).raise_for_status()
    (await served.admin.put("/v1/clients/acme", json={"plan": "free"})).raise_for_status()


def line(served: RunningControlPlane, credential: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {credential}"}
    return httpx.AsyncClient(base_url=served.url, headers=headers, trust_env=False, timeout=15)


async def answer_once(served: RunningControlPlane, credential: str, used: int) -> None:
    """A node that waits for questions and answers what comes: so much of every limit is used."""
    async with line(served, credential) as client:
        got = await client.get("/internal/v1/questions", params={"wait": 10})
        for question in msgspec.json.decode(got.raise_for_status().content, type=Questions).questions:
            assert question.client == "acme"
            figures = tuple(LimitFigure(rule_id, 1000, used, 1000 - used, 60.0) for rule_id in range(1, 251))
            answer = NodeAnswer(id=question.id, node="us-east-1", revision=3, figures=figures)
            sent = await client.post("/internal/v1/answers", content=msgspec.json.encode(answer))
            assert sent.status_code == 204, sent.text


async def limits(served: RunningControlPlane) -> list[dict[str, Any]]:
    answer = await served.admin.get("/v1/clients/acme/limits")
    found: list[dict[str, Any]] = answer.raise_for_status().json()["limits"]
    return found


async def test_a_region_that_answers_has_figures_and_a_silent_one_a_reason(served: RunningControlPlane) -> None:
    await prepare(served)
    await served.add_region("eu-west")
    node = asyncio.create_task(answer_once(served, served.credentials["us-east"], used=7))
    began = time.monotonic()
    found = await limits(served)
    assert time.monotonic() - began < 5
    await node
    assert len(found) == 90
    for limit in found:
        east, west = limit["regions"]["us-east"], limit["regions"]["eu-west"]
        assert (east["used"], east["remaining"], east["reset_s"], east["reason"]) == (7, 993, 60.0, None)
        assert west["used"] is None
        assert west["reason"] == "no node of this region answered within 1 s"


async def test_question_and_answer_find_their_way_between_replicas(
    served: RunningControlPlane, make_settings: Callable[..., Settings]
) -> None:
    await prepare(served)
    async with running(make_settings(), ADMIN_TOKEN) as other:
        node = asyncio.create_task(_answer_all(other, served.credentials["us-east"]))
        try:
            async with asyncio.timeout(60):
                # a replica that has just begun may not hear questions yet
                while (await limits(served))[0]["regions"]["us-east"]["used"] != 1:
                    assert not node.done()
        finally:
            node.cancel()
            await asyncio.gather(node, return_exceptions=True)


async def _answer_all(served: RunningControlPlane, credential: str) -> None:
    while True:
        await answer_once(served, credential, used=1)


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
