"""Traces: sent by OTLP to whatever collects them, continued from the caller's, and absent unless wanted."""

import asyncio
import contextlib

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from data_plane.node import Node
from testing.node import key_of, node_client, rule, settings_for
from tidegate.contract.config import Client, Plan

CONFIG = [
    Plan(plan="p", limits=(rule(1, "hourly", 1, algorithm="fixed_window"),)),
    Client(client="acme", plan="p"),
    key_of("acme", "tg_acme"),
]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
async def collector():
    """A collector of traces: its URL, and every span that it was sent, with its resource."""
    spans = []

    async def take(request):
        assert request.headers["content-type"] == "application/json"
        for resource in (await request.json())["resourceSpans"]:
            about = attributes(resource["resource"])
            spans.extend((about, span) for scope in resource["scopeSpans"] for span in scope["spans"])
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    async with TestServer(app) as server:
        yield str(server.make_url("/v1/traces")), spans


def attributes(described) -> dict[str, object]:
    return {one["key"]: next(iter(one["value"].values())) for one in described["attributes"]}


async def test_a_sampled_trace_is_continued_and_others_are_begun_by_share(tmp_path, valkey_url, collector):
    url, spans = collector
    asked = {"api_key": "tg_acme", "method": "GET", "path": "/x"}
    async with node_client(
        tmp_path, valkey_url, CONFIG, traces_url=url, traces_share=0.0, traces_follow_caller=True
    ) as client:
        await client.post("/v1/check", json=asked, headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
        await client.post("/v1/check", json=asked, headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-00"})
        denied = await client.post("/v1/check", json=asked, headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b8-01"})
        await client.post("/v1/check", json=asked)
        await client.post("/v1/check/batch", json={"checks": [asked, asked]})
    assert len(spans) == 2  # what waited was sent when the node stopped
    (about, first), (_, second) = spans
    assert (about["service.name"], about["tidegate.region"], about["service.instance.id"]) == (
        "tidegate-node",
        "us-east",
        "n1",
    )
    assert first["traceId"] == second["traceId"] == TRACE
    assert first["parentSpanId"] == "00f067aa0ba902b7"
    assert int(first["endTimeUnixNano"]) > int(first["startTimeUnixNano"])
    assert attributes(first)["tidegate.allowed"] is True
    told = attributes(second)
    assert (told["tidegate.allowed"], told["tidegate.violated"], told["tidegate.client"]) == (False, "hourly", "acme")
    assert told["tidegate.request_id"] == denied.json()["request_id"]
    assert "tg_acme" not in str(spans)


async def test_a_caller_that_samples_forces_no_trace_and_its_own_is_continued_by_share(tmp_path, valkey_url, collector):
    url, spans = collector
    sampled = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    for share in (0.0, 1.0):
        async with node_client(tmp_path, valkey_url, CONFIG, traces_url=url, traces_share=share) as client:
            for _ in range(2):
                await client.post("/v1/check", json={"api_key": "tg_acme"}, headers=sampled)
        assert len(spans) == 2 * share
    assert {(span["traceId"], span["parentSpanId"]) for _, span in spans} == {(TRACE, "00f067aa0ba902b7")}


async def test_traces_are_begun_by_share(tmp_path, valkey_url, collector):
    url, spans = collector
    async with node_client(tmp_path, valkey_url, CONFIG, traces_url=url, traces_share=1.0) as client:
        await client.post("/v1/check/batch", json={"checks": [{"api_key": "tg_acme"}] * 3})
    assert [attributes(span)["tidegate.allowed"] for _, span in spans] == [True, False, False]
    assert len({span["traceId"] for _, span in spans}) == 3


async def test_a_collector_that_is_away_disturbs_no_decision(tmp_path, valkey_url):
    with contextlib.closing(await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)) as silent:
        port = silent.sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1/traces"
    async with node_client(tmp_path, valkey_url, CONFIG, traces_url=url, traces_share=1.0) as client:
        answers = [await client.post("/v1/check", json={"api_key": "tg_acme"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]


async def test_a_node_that_traces_nothing_has_no_observer_for_it(tmp_path, valkey_url):
    on, off = (
        Node(settings_for(tmp_path / "snapshot", valkey_url, **wanted))
        for wanted in ({"traces_url": "http://127.0.0.1:9/v1/traces"}, {})
    )
    assert len(on.decider.observers) == len(off.decider.observers) + 1


@pytest.mark.parametrize("sent", ["", "junk", "00-xyz-00f067aa0ba902b7-01", f"00-{TRACE}-00f067aa0ba902b7-zz"])
async def test_a_malformed_traceparent_is_no_trace_and_no_error(tmp_path, valkey_url, collector, sent):
    url, spans = collector
    async with node_client(tmp_path, valkey_url, CONFIG, traces_url=url, traces_share=1.0) as client:
        answer = await client.post("/v1/check", json={"api_key": "tg_acme"}, headers={"traceparent": sent})
    assert (answer.status_code, spans) == (200, [])
