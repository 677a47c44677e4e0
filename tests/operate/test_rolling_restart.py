"""A region's nodes restarted one after the other under load by every handler: nothing fails, nothing is miscounted."""

import asyncio
import sys
from collections import Counter

import grpc
import httpx
import pytest
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse

from data_plane.rls.service import SERVICE
from testing.node import HOUR_US, key_of, rule, write_snapshot
from tests.operate.load import Load
from tests.operate.rolling import NODES, Region
from tidegate.contract.config import Client, Plan
from tidegate.stack.child import wait_until_ready

BIG, SMALL = 1_000_000, 500
LASTING = {"algorithm": "fixed_window", "window_us": 1_000 * HOUR_US}
"""What is counted by the hour begins anew where a run goes over the end of one."""
CONFIG = [
    Plan(plan="big", limits=(rule(1, "many", BIG, **LASTING),)),
    Plan(plan="small", limits=(rule(2, "few", SMALL, **LASTING),)),
    Client(client="acme", plan="big"),
    Client(client="globex", plan="small"),
    key_of("acme", "tg_acme"),
    key_of("globex", "tg_globex"),
]
KEYS = {"big": "tg_acme", "small": "tg_globex"}
BATCH = 3


class GrpcLoad:
    """Bounded load by Envoy's rate limit protocol. ``failed`` lists every call that got no decision."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.allowed: Counter[str] = Counter()
        self.denied: Counter[str] = Counter()
        self.failed: list[str] = []

    async def run(self, callers: int, until, pause_s: float) -> None:
        """So many callers on one connection, each size in turn, until ``until()``."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self._port}") as channel:
            call = channel.unary_unary(
                f"/{SERVICE}/ShouldRateLimit", request_serializer=RateLimitRequest.SerializeToString,
                response_deserializer=RateLimitResponse.FromString,
            )  # fmt: skip
            async with asyncio.TaskGroup() as group:
                for _ in range(callers):
                    group.create_task(self._ask(call, until, pause_s))

    async def _ask(self, call, until, pause_s: float) -> None:
        while not until():
            for size, key in KEYS.items():
                request = RateLimitRequest(domain="edge")
                request.descriptors.add().entries.add(key="api_key", value=key)
                try:
                    answer = await call(request, timeout=10)
                except grpc.aio.AioRpcError as error:
                    self.failed.append(f"{size}: {error.code()} {error.details()}")
                    continue
                (self.allowed if answer.overall_code == RateLimitResponse.OK else self.denied)[size] += 1
            await asyncio.sleep(pause_s)


@pytest.fixture
def region(tmp_path, valkey_url):
    for at in range(NODES):
        asyncio.run(write_snapshot(tmp_path / f"snapshot-n{at + 1}", CONFIG))
    region = Region(tmp_path, valkey_url)
    try:
        region.start()
        yield region
    finally:
        region.stop()


def questions() -> dict[str, object]:
    """Every handler that HTTP has for decisions, for a client that has plenty and for one that runs out."""
    asked: dict[str, object] = {}
    for size, key in KEYS.items():
        asked[f"{size}, check"] = {"api_key": key}
        asked[f"{size}, batch"] = {"checks": [{"api_key": key}] * BATCH}
        asked[f"{size}, authorize"] = (
            b"GET /v1/authorize/x HTTP/1.1\r\nhost: node\r\nx-api-key: %b\r\n\r\n" % key.encode()
        )
    return asked


def test_a_rolling_restart_fails_no_request_and_miscounts_none(region, capsys):
    http, by_grpc = Load(region.port, questions()), GrpcLoad(region.grpc_port)
    restarted = False

    async def under_load() -> None:
        nonlocal restarted
        running = [
            asyncio.create_task(http.run(8, lambda: restarted, most=20_000, pause_s=0.02)),
            asyncio.create_task(by_grpc.run(2, lambda: restarted, pause_s=0.02)),
        ]
        try:
            async with asyncio.timeout(30):
                while http.answered < 100 or by_grpc.allowed.total() < 20:
                    await asyncio.sleep(0.01)
            before = http.answered, by_grpc.allowed.total()
            await asyncio.to_thread(region.restart_each)
            # there was load all the while
            assert http.answered > before[0] + 500
            assert by_grpc.allowed.total() > before[1] + 100
        finally:
            restarted = True
            await asyncio.gather(*running)
        # On a busy machine a balancer may have found every node slow just now. Nodes end with the thread that started
        # them, and that one ends with this loop: so the look is taken here.
        await asyncio.to_thread(wait_until_ready, region.balancers[0], region.all_serve, timeout_s=60)

    asyncio.run(under_load())
    left = {
        size: httpx.post(
            f"http://127.0.0.1:{region.port}/v1/check", json={"api_key": key, "cost": 0}, trust_env=False
        ).json()["remaining"]
        for size, key in KEYS.items()
    }
    handlers = {handler: [0, 0] for handler in ("check", "batch", "authorize", "gRPC")}
    allowed = {size: by_grpc.allowed[size] for size in KEYS}
    for size in KEYS:
        handlers["gRPC"][0] += by_grpc.allowed[size]
        handlers["gRPC"][1] += by_grpc.denied[size]
        for handler in ("check", "batch", "authorize"):
            allowed[size] += http.allowed[f"{size}, {handler}"]
            handlers[handler][0] += http.allowed[f"{size}, {handler}"]
            handlers[handler][1] += http.denied[f"{size}, {handler}"]
    told = "; ".join(f"{handler} {yes} allowed, {no} denied" for handler, (yes, no) in handlers.items())
    with capsys.disabled():
        sys.stdout.write(
            f"\n{NODES} nodes restarted: {http.answered + by_grpc.allowed.total() + by_grpc.denied.total()} decisions,"
            f" {len(http.failed) + len(by_grpc.failed)} failed, {http.degraded} degraded; {told};"
            f" big: {allowed['big']} allowed, {BIG - left['big']} counted;"
            f" small: {allowed['small']} of {SMALL} allowed\n"
        )
    assert (http.failed, by_grpc.failed) == ([], [])
    assert http.degraded == 0
    assert (allowed["small"], left["small"]) == (SMALL, 0)
    assert BIG - left["big"] == allowed["big"]
    # who has plenty is never denied, and who runs out is denied at every handler
    assert {name for name in http.denied if name.startswith("big")} == set()
    assert by_grpc.denied["big"] == 0
    assert all(denied > 0 for _, denied in handlers.values())
