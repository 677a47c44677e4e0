"""What a client denies from memory is in the node's usage and denial log after its next call."""

import asyncio
import time

import httpx
import pytest
from structlog.testing import capture_logs

from data_plane.config.index import RuleIndex
from data_plane.decide.check_resolution import Anonymous, resolve
from data_plane.decide.denial_log import DenialLog
from data_plane.decide.pending_check import ResolvedCheck
from data_plane.store.subject_bounds import SubjectBounds
from testing.node import document_of
from tests.clients.conftest import config
from tidegate.contract.config import Gateway
from tidegate.contract.credentials import secret_sha256
from tidegate.contract.decision import CheckRequest
from tidegate.contract.denials import RepeatedDenial
from tidegate_client import AsyncTidegate, Options, Tidegate

TOKEN = "tgg_of-the-gateway"
GATEWAY = Gateway(sha256=secret_sha256(TOKEN), gateway="edge")
ASKED = 200
LIMIT = 3


def usage(served) -> tuple[int, int]:
    """Requests that the node has counted so far: allowed, and denied by the limit."""
    served.taken += [one for callers in served.node.usage.tally.take().values() for one in callers.values()]
    counts = served.taken
    objected = [entry for one in counts for (denied, _), entry in (one.denied_by or {}).items() if denied == (0,)]
    return sum(one.allowed for one in counts), sum(requests for requests, _ in objected)


@pytest.fixture
def served(start_node, monkeypatch):
    # what is counted stays in the node's memory, until the test takes it
    monkeypatch.setattr("data_plane.usage.tally.UsageFlusher.flush", _keep)
    node = start_node([*config(LIMIT), GATEWAY], trust="token")
    node.taken = []
    return node


async def _keep(*_: object) -> None:
    return None


def until(holds) -> None:
    end = time.monotonic() + 15
    while not holds():
        assert time.monotonic() < end, "not counted in time"
        time.sleep(0.02)


async def test_the_next_call_tells_what_was_denied_from_memory(served) -> None:
    options = Options(urls=[served.url], token=TOKEN, timeout_s=10, remember_denials_s=60)
    async with AsyncTidegate(options) as limiter:
        sources = [(await limiter.check(api_key="tg_acme", path="/x")).source for _ in range(ASKED)]
        asked = sources.count("node")
        assert sources.count("memory") == ASKED - asked > 0
        assert usage(served)[1] == asked - LIMIT
        await limiter.check(api_key="nobody", path="/x")
        await asyncio.to_thread(until, lambda: usage(served)[1] >= ASKED - LIMIT)
        assert usage(served)[1] == ASKED - LIMIT


def test_closing_tells_it_as_well(served) -> None:
    with Tidegate(Options(urls=[served.url], token=TOKEN, timeout_s=10, remember_denials_s=60)) as limiter:
        for _ in range(ASKED):
            limiter.check(api_key="tg_acme", path="/x")
    until(lambda: usage(served)[1] >= ASKED - LIMIT)
    assert usage(served) == (LIMIT, ASKED - LIMIT)


def test_a_stranger_tells_nothing(served) -> None:
    report = {"denials": [{"api_key": "tg_acme", "requests": 9, "cost": 9, "policy": "hourly"}]}
    with httpx.Client(base_url=served.url, trust_env=False) as client:
        assert client.post("/v1/denials", json=report).status_code == 403
        wrong = client.post("/v1/denials", json=report, headers={"X-Tidegate-Token": "tgg_wrong"})
        assert (wrong.status_code, usage(served)) == (401, (0, 0))
        client.headers["X-Tidegate-Token"] = TOKEN
        told = client.post("/v1/denials", json=report)
        assert (told.status_code, told.json()) == (202, {"taken": 1})
        assert usage(served) == (0, 9)
        gone = {"denials": [{"client": "gone", "requests": 1, "cost": 1}]}
        assert client.post("/v1/denials", json=gone).json() == {"taken": 0}


def test_it_is_in_the_denial_log() -> None:
    index = RuleIndex.empty("us-east").with_changes([document_of(value) for value in config(LIMIT)])
    denial = RepeatedDenial(api_key="tg_acme", requests=9, cost=9, policy="hourly", cause="used_up")
    check = ResolvedCheck(CheckRequest(api_key=denial.api_key))
    assert resolve(check, index, Anonymous(), SubjectBounds(), 0.0) is None
    log = DenialLog(1.0)
    with capture_logs() as lines:
        log.repeated(check, denial, 7, 1_000_000)
    (line,) = lines
    assert (line["event"], line["cause"], line["client"]) == ("denied", "used_up", "acme")
    assert (line["policies"], line["requests"], line["revision"]) == (("hourly",), 9, 7)
