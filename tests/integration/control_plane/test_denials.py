"""``GET /v1/denials`` asks every region, says why and what can be done; the console's Why? page shows the same."""

import asyncio
import re
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
import pytest

from control_plane.usage.denial_reasons import reason, remedy
from testing.control_plane import RunningControlPlane
from tests.integration.control_plane.test_console import opened
from tests.integration.control_plane.test_usage_questions import PATIENCE_S, answering
from tidegate.contract.denials import MAX_FOUND, Denial
from tidegate.contract.questions import NodeAnswer, Question

AT_MS = 1_764_499_320_000
AT = datetime.fromtimestamp(AT_MS / 1_000, UTC)
SPENT = Denial(
    at_ms=AT_MS, node="n1", cause="used_up", revision=7, request_id="find-me", client="acme", key="tg_abcde",
    ip="203.0.113.9", endpoint="reports", policy="hourly", limit=100, used=100, cost=1, retry_after_s=30.4,
)  # fmt: skip
BLOCKED = Denial(at_ms=AT_MS - 5, node="n2", cause="blocked", revision=7, client="acme", reason_class="abuse")


class Region:
    """What a region's agent remembers, and what it was asked."""

    def __init__(self, *denials: Denial) -> None:
        self.denials = denials
        self.asked: list[Question] = []

    async def answer(self, question: Question) -> NodeAnswer:
        self.asked.append(question)
        query = question.denials
        if query is None:
            return NodeAnswer(id=question.id, node="a1", revision=7)
        found = tuple(one for one in self.denials if query.fits(one))[: query.most]
        return NodeAnswer(id=question.id, node="a1", revision=7, denials=found)


async def asked_until_told(admin: httpx.AsyncClient, **query: object) -> dict[str, Any]:
    """A busy machine may take longer than the second that a region has."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await admin.get("/v1/denials", params={name.rstrip("_"): str(of) for name, of in query.items()})
            found: dict[str, Any] = answer.raise_for_status().json()
            if found["regions"]["us-east"] is None:
                return found


async def test_every_region_is_asked_and_a_silent_one_has_a_reason(served: RunningControlPlane) -> None:
    await served.add_region("eu-west")
    region = Region(SPENT, BLOCKED)
    async with answering(served, served.credentials["us-east"], region.answer):
        found = await asked_until_told(served.admin, client="acme")
        assert (await asked_until_told(served.admin, request_id="find-me"))["items"] == found["items"][:1]
        assert (await asked_until_told(served.admin, key="tg_abcdefghijkl", ip="203.0.113.9"))["items"]
        assert (await asked_until_told(served.admin, ip="::ffff:203.0.113.9"))["items"], "an address in any spelling"
        assert not (await asked_until_told(served.admin, client="acme", to=AT.isoformat()))["items"][1:]
        assert not (await asked_until_told(served.admin, client="zeta"))["items"]
    assert found["regions"]["eu-west"] == "no agent of this region answered within 1 s"
    spent, blocked = found["items"]
    assert (datetime.fromisoformat(spent["at"]), spent["region"], spent["node"]) == (AT, "us-east", "n1")
    assert (spent["limit_name"], spent["limit"], spent["used"], spent["cost"]) == ("hourly", 100, 100, 1)
    assert (spent["cause"], spent["revision"], spent["canary"], spent["key"]) == ("used_up", 7, False, "tg_abcde")
    assert (blocked["cause"], blocked["reason_class"], blocked["limit_name"]) == ("blocked", "abuse", None)
    assert region.asked[0].client == "", "who does not know the question sees a client that it does not know"


async def test_as_many_as_a_region_may_tell_find_their_way(served: RunningControlPlane) -> None:
    long = msgspec.structs.replace(
        SPENT, request_id="\N{SNOWMAN}" * 128, client="\N{SNOWMAN}" * 128, endpoint="\N{SNOWMAN}" * 128,
        policy="\N{SNOWMAN}" * 128, node="\N{SNOWMAN}" * 128,
    )  # fmt: skip
    region = Region(*(msgspec.structs.replace(long, at_ms=AT_MS - at) for at in range(MAX_FOUND)))
    async with answering(served, served.credentials["us-east"], region.answer):
        found = await asked_until_told(served.admin, limit=MAX_FOUND)
        assert len(found["items"]) == MAX_FOUND
        assert len((await asked_until_told(served.admin, limit=3))["items"]) == 3
    assert [one["at"] for one in found["items"]] == sorted((one["at"] for one in found["items"]), reverse=True)


async def test_what_cannot_be_asked_is_refused(served: RunningControlPlane) -> None:
    for query in ({"limit": 101}, {"key": "t"}, {"from": "yesterday"}, {"client": "x" * 129}):
        assert (await served.admin.get("/v1/denials", params=query)).status_code == 422, query
    async with httpx.AsyncClient(base_url=served.url, trust_env=False) as stranger:
        assert (await stranger.get("/v1/denials")).status_code == 401


async def test_the_console_answers_in_a_sentence_with_evidence_and_what_can_be_done(
    served: RunningControlPlane,
) -> None:
    await served.add_region("eu-west")
    earlier = msgspec.structs.replace(SPENT, at_ms=AT_MS - 60_000, request_id="a-minute-before", used=3, cost=99)
    await served.admin.put("/v1/plans/free", json={"limits": [{"name": "hourly", "limit": 100, "window_s": 3600}]})
    await served.admin.put("/v1/clients/acme", json={"plan": "free"})
    async with (
        answering(served, served.credentials["us-east"], Region(SPENT, earlier).answer),
        httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=20) as client,
    ):
        page = await opened(client)

        async def told(query: str) -> str:
            async with asyncio.timeout(PATIENCE_S):
                while "us-east: no node" in (text := (await page.get(f"/why?{query}")).text):
                    pass
            return unescape(text)

        by_request = await told("q=find-me")
        by_time = await told(f"q=acme&at={quote((AT - timedelta(seconds=50)).isoformat())}")
        by_another_time = await told(f"q=acme&at={quote((AT - timedelta(days=1)).isoformat())}")
        nothing = await told("q=some-other-id")
        wrong = await page.get("/why?q=acme&at=sometime")
    assert "acme was denied in us-east" in by_request
    assert "The limit hourly of 100 at reports was used up: 100 of 100 were used, 1 asked." in by_request
    assert "tidegate overrides set acme hourly --limit N" in by_request
    assert "/console/do/override?client=acme&name=hourly" in by_request, "what can be done stands beside the answer"
    assert "eu-west: no agent of this region answered within 1 s." in by_request, "there may be more"
    assert "3 of 100 were used, 99 asked" in by_time, "the denial that is nearest to the time"
    assert "No region remembers a denial of the client acme within 30 min of" in by_another_time
    assert "No region remembers a denial of the request some-other-id." in nothing
    assert wrong.status_code == 422
    assert re.search(r'id="at" [^>]*value="sometime"[^>]*aria-invalid="true"', wrong.text)


@pytest.mark.parametrize(
    ("denial", "why", "what"),
    [
        (
            SPENT,
            (
                "The limit hourly of 100 at reports was used up: 100 of 100 were used, 1 asked. It would have passed"
                " 30 s later."
            ),
            "tidegate overrides set acme hourly --limit N",
        ),
        (
            msgspec.structs.replace(SPENT, cause="too_few_left", used=99, cost=5, retry_after_s=None),
            "The limit hourly of 100 at reports had less left than was asked for: 99 of 100 were used, 5 asked.",
            "Ask for less",
        ),
        (
            msgspec.structs.replace(SPENT, cause="cost_above_limit", cost=500),
            "The request at reports asked for 500, more than the limit hourly of 100 can ever hold.",
            "waiting does not help",
        ),
        (
            Denial(at_ms=0, node="n", cause="used_up", revision=1, policy="per-ip", degraded=True),
            "The limit per-ip was used up: 1 asked, decided without the region's store.",
            "API key",
        ),
        (
            BLOCKED,
            "A block (abuse) holds the client, its key, its address or the endpoint.",
            "tidegate blocks list --client acme",
        ),
        (Denial(at_ms=0, node="n", cause="client_suspended", revision=1), "The client is suspended.", "active"),
    ],
)
def test_a_denial_is_one_sentence_and_what_can_be_done(denial: Denial, why: str, what: str) -> None:
    assert reason(denial) == why
    assert what in remedy(denial)


def test_what_can_be_done_is_one_command_whatever_was_sent_as_a_key() -> None:
    denial = Denial(at_ms=0, node="n", cause="unknown_api_key", revision=1, key="tg_`sh`x")
    assert "--prefix 'tg_`sh`x')" in remedy(denial)
