"""What a node was not asked properly it refuses, in words; and whoever hangs up disturbs nobody else."""

import asyncio
import contextlib
import socket
import struct
from collections import Counter

import httpx
import pytest

from testing.stack import Stack

PROBLEM = "application/problem+json"
HANG_UPS = 50


@pytest.mark.parametrize(
    ("body", "statuses", "named"),
    [
        pytest.param(b"cost=1", {400}, "JSON", id="not JSON"),
        pytest.param(b"[1]", {400, 422}, "object", id="not an object"),
        pytest.param(b'{"api_kye": "x"}', {400, 422}, "api_kye", id="unknown field"),
        pytest.param(b'{"ip": "203.0.113.1", "cost": -1}', {400, 422}, "cost", id="negative cost"),
        pytest.param(b'{"ip": "203.0.113.1", "cost": 1.5}', {400, 422}, "cost", id="cost is a fraction"),
        pytest.param(b'{"ip": "203.0.113.1", "cost": NaN}', {400, 422}, "JSON", id="cost is NaN"),
        pytest.param(b'{"ip": "203.0.113.1", "cost": 1e400}', {400, 422}, "cost", id="cost beyond a double"),
        pytest.param(b'{"ip": "203.0.113.999"}', {400, 422}, "ip", id="no address"),
        pytest.param(b'{"ip": "fe80::1%eth0"}', {400, 422}, "ip", id="address with a zone"),
        pytest.param(b'{"api_key": "' + b"k" * 300 + b'"}', {400, 422}, "api_key", id="long key"),
        pytest.param(b'{"endpoint": "' + b"x" * 70 * 1024 + b'"}', {413}, "65536", id="70 KB"),
    ],
)
def test_bad_check_is_refused_with_what_was_wrong(stack: Stack, body: bytes, statuses: set[int], named: str) -> None:
    url = f"{stack.node('us-east').url}/v1/check"
    answer = httpx.post(url, content=body, headers={"Content-Type": "application/json"}, trust_env=False)
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == PROBLEM
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["title"]
    assert named.lower() in str(problem).lower()
    assert "allowed" not in problem, "a decision is never given on a request that was not understood"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/v1/nonsense", 404), ("GET", "/", 404), ("DELETE", "/v1/check", 405), ("GET", "/v1/check/batch", 405)],
)
def test_unknown_path_or_method_is_a_problem(stack: Stack, method: str, path: str, status: int) -> None:
    answer = httpx.request(method, f"{stack.node('us-east').url}{path}", trust_env=False)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    assert answer.json()["status"] == status


async def test_client_that_hangs_up_disturbs_no_other(stack: Stack) -> None:
    key = stack.client_with_limit("hang-up", 10_000)
    place = stack.node("us-east")
    whole = (
        b"POST /v1/check HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        % (len(b'{"api_key": "%b"}' % key.encode()), b'{"api_key": "%b"}' % key.encode())
    )

    async def hang_up(sent: bytes) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", place.port)
        # A reset instead of an orderly end: the node's next write to it fails.
        plug = writer.get_extra_info("socket")
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.write(sent)
        await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async with httpx.AsyncClient(trust_env=False, timeout=10, base_url=place.url) as http:
        # Cut in the head, in the body, and right after a whole request that is still being decided.
        rude = [hang_up(whole[: len(whole) * (nth % 4 + 1) // 4]) for nth in range(HANG_UPS)]
        polite = [http.post("/v1/check", json={"api_key": key}) for _ in range(HANG_UPS)]
        pairs = [task for pair in zip(rude, polite, strict=True) for task in pair]
        answers = [answer for answer in await asyncio.gather(*pairs) if answer is not None]
    assert Counter(answer.status_code for answer in answers) == {200: HANG_UPS}
    assert not any(answer.json()["degraded"] for answer in answers)
