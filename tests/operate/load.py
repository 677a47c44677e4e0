"""Bounded load on one address of this machine: keep-alive connections that ask one check after the other and count."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any


class Load:
    """What was answered. A body is a check, or with ``checks`` a batch; bytes are a whole request of forward-auth.

    ``failed`` lists every request that got no decision, with what happened instead.
    """

    def __init__(self, port: int, bodies: Mapping[str, Mapping[str, Any] | bytes]) -> None:
        self._port = port
        self._bodies = bodies
        self._requests = {name: _request(body) for name, body in bodies.items()}
        self.allowed: Counter[str] = Counter()
        self.denied: Counter[str] = Counter()
        self.degraded = 0
        self.failed: list[str] = []
        self.connections = 0

    @property
    def answered(self) -> int:
        """Decisions in all."""
        return self.allowed.total() + self.denied.total()

    async def run(self, connections: int, until: Callable[[], bool], most: int, pause_s: float = 0.0) -> None:
        """Ask over so many connections, each body in turn, until ``until()`` or ``most`` requests a connection."""
        async with asyncio.TaskGroup() as group:
            for number in range(connections):
                group.create_task(self._ask(number, until, most, pause_s))

    async def _ask(self, number: int, until: Callable[[], bool], most: int, pause_s: float) -> None:
        names = list(self._requests)
        stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        for nth in range(most):
            if until():
                break
            name = names[(number + nth) % len(names)]
            try:
                if stream is None:
                    stream = await asyncio.open_connection("127.0.0.1", self._port)
                    self.connections += 1
                stream[1].write(self._requests[name])
                async with asyncio.timeout(10):
                    status, headers, body = await _response(stream[0])
            except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
                self.failed.append(f"{name}: {error!r}")
                stream = await _closed(stream)
                continue
            self._note(name, status, body)
            if headers.get("connection") == "close":
                stream = await _closed(stream)
            if pause_s:
                await asyncio.sleep(pause_s)
        await _closed(stream)

    def _note(self, name: str, status: int, body: bytes) -> None:
        if status not in {200, 429}:
            self.failed.append(f"{name}: {status} {body[:200]!r}")
            return
        if isinstance(self._bodies[name], bytes):  # forward-auth says it by its status alone
            decisions = [{"allowed": status == 200, "degraded": False}]
        else:
            answer = json.loads(body)
            assert answer.get("allowed", True) is (status == 200)
            decisions = answer.get("decisions", [answer])
        for decision in decisions:
            self.degraded += decision["degraded"]
            (self.allowed if decision["allowed"] else self.denied)[name] += 1


async def _closed(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None) -> None:
    if stream is not None:
        stream[1].close()
        with contextlib.suppress(OSError):
            await stream[1].wait_closed()


async def _response(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


def _request(body: Mapping[str, Any] | bytes) -> bytes:
    if isinstance(body, bytes):
        return body
    path, text = b"/v1/check/batch" if "checks" in body else b"/v1/check", json.dumps(body).encode()
    return b"POST %b HTTP/1.1\r\nhost: node\r\ncontent-length: %d\r\n\r\n%b" % (path, len(text), text)
