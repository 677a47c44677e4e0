"""Posts to the nodes of a region: one that fails rests for a while, and nothing that may have counted is sent twice."""

import asyncio
import logging
import time
from collections.abc import Callable
from math import inf
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec

from tidegate_client.http import BrokenError, NotSentError, Origin
from tidegate_client.messages import UNREADABLE
from tidegate_client.options import Options

CHECK_BATCH = "/v1/check/batch"
REST_S = 0.1
LONGEST_REST_S = 5.0
CONNECT_SHARE = 1 / 2
"""The part of a check's time in which a connection must be made, so that there is time for the next node."""
MOST_CONNECT_S = 1.0


class NoAnswerError(Exception):
    """No node answered, or not with what a node answers."""


class Answered(NamedTuple):
    """An answer, and the node that gave it."""

    origin: str
    status: int
    body: bytes


class _Error(msgspec.Struct):
    error: str | None = None
    allowed: bool | None = None


_error_decoder = msgspec.json.Decoder(_Error)
_log = logging.getLogger("tidegate_client")


class _Node:
    def __init__(self, url: str, options: Options, now: Callable[[], float]) -> None:
        self.url = url.rstrip("/")
        headers = {} if options.token is None else {"x-tidegate-token": options.token}
        connect_s = min(MOST_CONNECT_S, options.timeout_s * CONNECT_SHARE)
        # A node serves checks on a lane of their own; a connection that once asked for something else has left it.
        self.lane, self.other = (Origin(url, headers, options.tls, now, connect_s) for _ in range(2))
        self.rests_until = 0.0
        self._failed_at = -inf
        self._rest_s = REST_S

    def failed(self, asked_at: float, now: float) -> None:
        """Rest, longer each time. What was asked before it last failed says nothing new."""
        if asked_at <= self._failed_at:
            return
        self._failed_at = now
        self.rests_until = now + self._rest_s
        self._rest_s = min(LONGEST_REST_S, self._rest_s * 2)

    def answered(self) -> None:
        self.rests_until, self._rest_s = 0.0, REST_S


class Nodes:
    """The nodes of ``options.urls``; ``now`` is a clock that only goes forward, in seconds."""

    def __init__(self, options: Options, now: Callable[[], float] = time.monotonic) -> None:
        self._nodes = [_Node(url, options, now) for url in options.urls]
        self._timeout_s = options.timeout_s
        self._now = now
        self._turn = 0
        self._told_of_token = False
        self.failures = 0

    async def post(self, path: str, body: bytes, *, origin: str | None = None) -> Answered:
        """Ask a node, or the one at ``origin``. Raises ``NoAnswerError``.

        Only a request that was never sent goes to the next node. What was sent may have counted, answer or not.
        """
        for node in self._awake(origin):
            asked_at = self._now()
            way = node.lane if path == CHECK_BATCH else node.other
            try:
                async with asyncio.timeout(self._timeout_s):
                    status, answer = await way.post(path, body)
            except NotSentError:
                self._failed(node, asked_at)
                continue
            except BrokenError as error:
                self._failed(node, asked_at)
                raise NoAnswerError(str(error)) from error
            except TimeoutError as error:
                self._failed(node, asked_at)
                raise NoAnswerError("no answer in time") from error
            if status >= 500 and not _says_store_is_away(answer):
                self._failed(node, asked_at)
                raise NoAnswerError(f"status {status}")
            node.answered()
            if status == 401 and not self._told_of_token and _refuses_token(answer):
                # A mistake of the set-up, which the fail policy would hide.
                self._told_of_token = True
                host = urlsplit(node.url).netloc.rpartition("@")[2]
                _log.error("%s%s answered 401: it wants a gateway token (Options.token) that it knows", host, path)
            return Answered(node.url, status, answer)
        raise NoAnswerError("no node can be reached")

    async def aclose(self) -> None:
        """Close the connections."""
        for node in self._nodes:
            await node.lane.aclose()
            await node.other.aclose()

    def forget(self) -> None:
        """Leave the connections: they were made on another event loop."""
        for node in self._nodes:
            node.lane.forget()
            node.other.forget()

    def _awake(self, origin: str | None) -> list[_Node]:
        """Who may be asked, in turn."""
        if origin is not None:
            return [node for node in self._nodes if node.url == origin]
        now = self._now()
        self._turn += 1
        turn = self._turn % len(self._nodes)
        return [node for node in self._nodes[turn:] + self._nodes[:turn] if now >= node.rests_until]

    def _failed(self, node: _Node, asked_at: float) -> None:
        self.failures += 1
        node.failed(asked_at, self._now())


def _says_store_is_away(answer: bytes) -> bool:
    """Without its store a node lends and reserves nothing, and says so; it decides all the same."""
    return _read(answer).error == "store_unavailable"


def _refuses_token(answer: bytes) -> bool:
    """In a 401: where an end user's key is refused, it is a decision."""
    return _read(answer).allowed is None


def _read(answer: bytes) -> _Error:
    try:
        return _error_decoder.decode(answer)
    except UNREADABLE:
        return _Error()
