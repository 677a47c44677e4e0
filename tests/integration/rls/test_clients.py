"""Clients of other makes, asking nodes as they are run: many, in a row, rude ones, and while nodes restart."""

import asyncio
import contextlib
import json
import os
import socket
import struct
from itertools import pairwise
from pathlib import Path

import grpc
import psutil
import pytest
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse

from data_plane.rls import frames
from data_plane.rls.service import SERVICE
from testing.forked import ForkedChild
from testing.go_tools import go_tool
from testing.node import NOWHERE, PUBLIC_KEY, REGION_CREDENTIAL, key_of, rule, write_snapshot
from tests.unit.rls import harness
from tidegate.contract.config import Client, Plan
from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.ports import free_ports
from tools.bench.rls_ghz import protoset

METHOD = f"/{SERVICE}/ShouldRateLimit"
HEALTH = "/grpc.health.v1.Health/Check"
CONFIG = [
    Plan(plan="big", limits=(rule(1, "hourly", 10**9, algorithm="fixed_window"),)),
    Client(client="acme", plan="big"),
    key_of("acme", "tg_acme"),
]
REQUEST = RateLimitRequest(domain="edge")
REQUEST.descriptors.add().entries.add(key="api_key", value="tg_acme")
DRAIN_S = 1.0


def node_process(directory: Path, redis_url: str, name: str, rls_port: int, health_port: int) -> Child:
    """A node as it is run, not started yet."""
    env = {
        "TIDEGATE_NODE": name, "TIDEGATE_REGION": "us-east", "TIDEGATE_PORT": str(free_ports(1)[0]),
        "TIDEGATE_RLS_PORT": str(rls_port), "TIDEGATE_HEALTH_PORT": str(health_port), "TIDEGATE_TRUST": "network",
        "TIDEGATE_REDIS_URL": redis_url, "TIDEGATE_REDIS_DEADLINE_MS": "2000", "TIDEGATE_CONTROL_PLANE_URL": NOWHERE,
        "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": PUBLIC_KEY, "TIDEGATE_REGION_CREDENTIAL": REGION_CREDENTIAL,
        "TIDEGATE_DRAIN_S": str(DRAIN_S), "TIDEGATE_SNAPSHOT_FILE": str(directory / f"snapshot-{name}"),
    }  # fmt: skip
    return ForkedChild(f"node {name}", "data-plane", log_path=directory / f"{name}.log", env=env)


def is_serving(port: int) -> bool:
    """Whether the node says so by gRPC's health protocol."""
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            return channel.unary_unary(HEALTH)(b"", timeout=2) == b"\x08\x01"
        except grpc.RpcError:
            return False


@contextlib.contextmanager
def running(directory: Path, redis_url: str, name: str, port: int):
    asyncio.run(write_snapshot(directory / f"snapshot-{name}", CONFIG))
    node = node_process(directory, redis_url, name, port, free_ports(1)[0])
    node.start()
    try:
        wait_until_ready(node, lambda: is_serving(port), timeout_s=60)
        yield node
    finally:
        node.stop(timeout_s=20)


@pytest.fixture
def node(tmp_path, valkey_url):
    """A running node: its port and its process."""
    port = free_ports(1)[0]
    with running(tmp_path, valkey_url, "n1", port) as child:
        yield port, psutil.Process(child.pid)


def ask_of(channel):
    return channel.unary_unary(
        METHOD, request_serializer=RateLimitRequest.SerializeToString,
        response_deserializer=RateLimitResponse.FromString,
    )  # fmt: skip


def test_four_thousand_calls_at_once_are_all_answered(node):
    """Of as many, gRPC's own server cancelled 6 to 32 in a hundred."""
    port, _ = node

    async def ask_all() -> list:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            ask = ask_of(channel)
            answers = []
            for _ in range(2):
                answers += await asyncio.gather(
                    *(ask(REQUEST, timeout=60) for _ in range(4_000)), return_exceptions=True
                )
            return answers

    answers = asyncio.run(ask_all())
    assert [answer for answer in answers if isinstance(answer, BaseException)] == []
    assert {answer.overall_code for answer in answers} == {RateLimitResponse.OK}
    left = [answer.statuses[0].limit_remaining for answer in answers]
    assert len(set(left)) == 8_000, "each was counted once"


class RawClient:
    """A client that has the bytes in its own hand."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        # what is asked after a widened window would wait 40 ms for the other side's acknowledgement
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(frames.PREFACE + frames.settings({}))
        self.stream = 1
        head = dict(harness.FIELDS) | {":path": METHOD}
        self.head = harness.literal(*head.items())
        self.message = REQUEST.SerializeToString()

    def ask(self, calls: int) -> None:
        sent = b""
        for _ in range(calls):
            sent += harness.call(self.stream, self.message, self.head)
            self.stream += 2
        self.socket.sendall(sent)

    def read_answers(self, calls: int) -> None:
        """Until so many calls are answered; the connection's window is widened by what came."""
        data = b""
        while data.count(b"grpc-status\x010") < calls:
            more = self.socket.recv(1 << 16)
            assert more, "the node closed the connection"
            data += more
        self.socket.sendall(frames.window_update(0, len(data)))

    def hang_up(self) -> None:
        """As a process that is killed: by a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def test_ten_thousand_calls_in_a_row_take_no_memory(node):
    port, process = node
    client = RawClient(port)
    sizes = []
    for calls in (5_000, 10_000, 10_000):  # the first are to warm up
        for _ in range(calls // 20):
            client.ask(20)
            client.read_answers(20)
        sizes.append(process.memory_full_info().uss)
    client.socket.close()
    # what streams leave behind would be seen each time; what else the node does then is not
    assert min(after - before for before, after in pairwise(sizes)) < 512 * 1024, sizes


def test_who_hangs_up_in_mid_flight_disturbs_no_other(node):
    port, _ = node

    async def ask_among_rude_ones() -> list:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            ask = ask_of(channel)
            answers = []
            for _ in range(8):
                rude = [RawClient(port) for _ in range(5)]
                running = [asyncio.ensure_future(ask(REQUEST, timeout=30)) for _ in range(50)]
                given_up = [ask(REQUEST, timeout=30) for _ in range(10)]
                for client in rude:
                    client.ask(20)
                    client.socket.sendall(harness.headers(client.stream, client.head)[:20])  # the next one half
                await asyncio.sleep(0)
                for client in rude:
                    client.hang_up()
                for one in given_up:
                    one.cancel()
                answers += await asyncio.gather(*running, return_exceptions=True)
            return answers

    answers = asyncio.run(ask_among_rude_ones())
    assert {getattr(answer, "overall_code", answer) for answer in answers} == {RateLimitResponse.OK}
    assert is_serving(port)


def test_nodes_restart_one_after_the_other_and_no_call_fails(tmp_path, valkey_url):
    """Clients hear of it by GOAWAY: there is no balancer, and nothing is asked twice by the caller.

    gRPC itself asks another node where a call had not left the client when it heard: that needs no retry policy.
    """
    ports = free_ports(2)
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(running(tmp_path, valkey_url, f"n{at}", port)) for at, port in enumerate(ports)]

        async def ask_meanwhile() -> tuple[int, list[str]]:
            target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
            options = [
                ("grpc.lb_policy_name", "round_robin"),
                ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200),
            ]  # fmt: skip
            answered, failed, restarted = 0, [], False
            async with grpc.aio.insecure_channel(target, options=options) as channel:
                ask = ask_of(channel)

                async def keep_asking() -> None:
                    nonlocal answered
                    while not restarted:
                        try:
                            await ask(REQUEST, timeout=30, wait_for_ready=True)
                            answered += 1
                        except grpc.aio.AioRpcError as error:
                            failed.append(f"{error.code()}: {error.details()}")

                asking = [asyncio.create_task(keep_asking()) for _ in range(8)]
                try:
                    for at, child in enumerate(nodes):
                        before = answered
                        await asyncio.to_thread(child.stop, 20)
                        assert answered > before, "the other one answered meanwhile"
                        await asyncio.to_thread(child.start)
                        async with asyncio.timeout(60):
                            while not await asyncio.to_thread(is_serving, ports[at]):
                                await asyncio.sleep(0.05)
                finally:
                    restarted = True
                    await asyncio.gather(*asking)
            return answered, failed

        answered, failed = asyncio.run(ask_meanwhile())
    assert failed == []
    assert answered > 200


@pytest.mark.parametrize("timeout", ["0", "20s"], ids=["without-deadline", "with-deadline"])
def test_ghz_is_answered_every_call(node, tmp_path, timeout):
    port, _ = node
    (tmp_path / "rls.protoset").write_bytes(protoset())
    request = {"domain": "edge", "descriptors": [{"entries": [{"key": "api_key", "value": "tg_acme"}]}]}
    command = [
        go_tool("ghz"), "--insecure", "--protoset", str(tmp_path / "rls.protoset"),
        "--call", f"{SERVICE}/ShouldRateLimit", "--data", json.dumps(request), "--concurrency", "64",
        "--connections", "8", "--total", "2000", "--timeout", timeout, "--format", "json", f"127.0.0.1:{port}",
    ]  # fmt: skip

    async def ask() -> bytes:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=os.environ)
        async with asyncio.timeout(90):
            return (await process.communicate())[0]

    assert json.loads(asyncio.run(ask()))["statusCodeDistribution"] == {"OK": 2_000}
