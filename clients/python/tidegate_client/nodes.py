"""Posts to the nodes of a region: one that fails rests for a while, and nothing that may have counted is sent twice."""

import ssl
import time
from collections.abc import Callable
from typing import NamedTuple

import httpx

from tidegate_client.options import Options

CHECK_BATCH = "/v1/check/batch"
REST_S = 0.1
LONGEST_REST_S = 5.0
MOST_ANSWER_BYTES = 4 * 1024 * 1024
# Shorter than a node's own keep-alive (75 s): a connection is not used in the moment in which the node closes it.
_LIMITS = httpx.Limits(max_connections=32, max_keepalive_connections=32, keepalive_expiry=30)
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class NoAnswerError(Exception):
    """No node answered, or not with what a node answers."""


class Answered(NamedTuple):
    """An answer, and the node that gave it."""

    origin: str
    status: int
    body: bytes


class _Node:
    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.rests_until = 0.0
        self.rest_s = REST_S

    def failed(self, now: float) -> None:
        self.rests_until = now + self.rest_s
        self.rest_s = min(LONGEST_REST_S, self.rest_s * 2)

    def answered(self) -> None:
        self.rests_until, self.rest_s = 0.0, REST_S


class Nodes:
    """The nodes of ``options.urls``; ``now`` is a clock that only goes forward, in seconds."""

    def __init__(self, options: Options, now: Callable[[], float] = time.monotonic) -> None:
        headers = {"content-type": "application/json"}
        if options.token is not None:
            headers["x-tidegate-token"] = options.token
        verify: ssl.SSLContext | bool = options.verify
        # A node serves checks on a lane of their own; a connection that once asked for something else has left it.
        self._lane, self._other = (
            httpx.AsyncClient(
                headers=headers, timeout=options.timeout_s, limits=_LIMITS, trust_env=False, verify=verify
            )
            for _ in range(2)
        )
        self._nodes = [_Node(url) for url in options.urls]
        self._now = now
        self._turn = 0
        self.failures = 0

    async def post(self, path: str, body: bytes, *, origin: str | None = None) -> Answered:
        """Ask a node, or the one at ``origin``. Raises ``NoAnswerError``.

        Only a request that was never sent goes to the next node. What was sent may have counted, answer or not.
        """
        for node in self._awake(origin):
            try:
                return await self._post(node, path, body)
            except _NEVER_SENT:
                self._failed(node)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                self._failed(node)
                raise NoAnswerError(type(error).__name__) from error
        raise NoAnswerError("no node can be reached")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._lane.aclose()
        await self._other.aclose()

    async def _post(self, node: _Node, path: str, body: bytes) -> Answered:
        http = self._lane if path == CHECK_BATCH else self._other
        async with http.stream("POST", node.url + path, content=body) as response:
            chunks, size = [], 0
            async for chunk in response.aiter_raw():
                size += len(chunk)
                if size > MOST_ANSWER_BYTES:
                    raise httpx.ReadError("the answer is too long")
                chunks.append(chunk)
        if response.status_code >= 500:
            self._failed(node)
            raise NoAnswerError(f"status {response.status_code}")
        node.answered()
        return Answered(node.url, response.status_code, b"".join(chunks))

    def _awake(self, origin: str | None) -> list[_Node]:
        """Who may be asked, in turn."""
        if origin is not None:
            return [node for node in self._nodes if node.url == origin]
        now = self._now()
        self._turn += 1
        turn = self._turn % len(self._nodes)
        return [node for node in self._nodes[turn:] + self._nodes[:turn] if now >= node.rests_until]

    def _failed(self, node: _Node) -> None:
        self.failures += 1
        node.failed(self._now())
