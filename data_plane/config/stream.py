"""The line to the control plane: one stream down, ACKs up. Nodes and agents dial out; nothing dials in."""

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

import httpx
import msgspec
import structlog

from data_plane.config.service import ConfigService, OutOfStepError
from tidegate.contract.config import Ack, StreamMessage
from tidegate.contract.decoding import UNREADABLE
from tidegate.contract.status import Hello, Newest, NodeReport, Role

log = structlog.get_logger()
_decoder = msgspec.json.Decoder(StreamMessage)
_newest = msgspec.json.Decoder(Newest)

MAX_LINE_BYTES = 64 * 1024 * 1024
SILENCE_S = 20.0
"""Heartbeats come every few seconds; a stream that is silent for longer is dead."""
REPORT_S = 10.0
SAY_AGAIN_S = 60.0
"""Trouble that stays the same is logged so often."""
ASK_S = 2.0
_BACKOFF_S = (0.5, 10.0)


class Decided(NamedTuple):
    """What a node decided since its start."""

    decisions: int
    denied: int
    degraded: int


@dataclass
class Link:
    """The state of the line, for ``/v1/status`` and the metrics. ``heard_at_s`` is epoch seconds or ``None``."""

    connected: bool = False
    last_error: str | None = None
    reconnects: int = 0
    heard_at_s: float | None = None
    """When the control plane last said anything."""


class ControlPlaneStream:
    """Keeps the configuration up to date, for ever; every trouble ends in another try, with backoff and full jitter."""

    def __init__(
        self,
        url: str,
        credential: str,
        node: str,
        region: str,
        version: str,
        config: ConfigService,
        decided: Callable[[], Decided],
        confirmed: Callable[[Ack], Awaitable[Ack]],
        tls: ssl.SSLContext | None = None,
        role: Role = "node",
    ) -> None:
        self._node, self._region, self._version, self._role = node, region, version, role
        self._config = config
        self._decided = decided
        self._confirmed = confirmed
        """What an ACK becomes once the region's store knows of it."""
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {credential}"},
            timeout=httpx.Timeout(5.0, read=SILENCE_S),
            trust_env=False,
            verify=True if tls is None else tls,
        )
        self.link = Link()
        self._said_s = 0.0
        """When the log was last told of trouble."""
        self._unsaid: dict[int, Ack] = {}
        """By revision, those with instants of cuts that did not arrive: raises wait, and nothing else says them."""

    async def run(self) -> None:
        """Stay connected until cancelled."""
        delay = _BACKOFF_S[0]
        from_nothing = False
        try:
            while True:
                try:
                    await self._follow(from_nothing=from_nothing)
                    from_nothing, delay = False, _BACKOFF_S[0]  # the control plane ended it in good order
                    self.link.last_error = None
                except OutOfStepError as error:
                    # Once more from nothing; when that fails too, no quicker than any other trouble.
                    delay = _BACKOFF_S[0] if not from_nothing else min(delay * 2, _BACKOFF_S[1])
                    from_nothing = True
                    self._failed(str(error))
                except (httpx.HTTPError, *UNREADABLE) as error:
                    delay = _BACKOFF_S[0] if self.link.connected else min(delay * 2, _BACKOFF_S[1])
                    self._failed(f"{type(error).__name__}: {error}")
                self.link.connected = False
                self.link.reconnects += 1
                await asyncio.sleep(random.uniform(0, delay))  # noqa: S311  jitter, not a secret
        finally:
            await self._client.aclose()

    async def report(self) -> None:
        """Say every few seconds how this node decides, while it is connected: roll-outs go by that."""
        told = self._decided()
        while True:
            await asyncio.sleep(REPORT_S)
            now = self._decided()
            if not self.link.connected or now.decisions == told.decisions:
                continue
            since = NodeReport(
                node=self._node, decisions=now.decisions - told.decisions,
                denied=now.denied - told.denied, degraded=now.degraded - told.degraded,
            )  # fmt: skip
            told = now
            # a report that is lost is not sent again
            with contextlib.suppress(httpx.HTTPError):
                await self._post("/internal/v1/reports", since)

    def _failed(self, error: str) -> None:
        now_s = time.monotonic()
        if error != self.link.last_error or now_s >= self._said_s + SAY_AGAIN_S:
            log.warning("control_plane_stream_ended", error=error, reconnects=self.link.reconnects)
            self._said_s = now_s
        self.link.last_error = error

    async def _follow(self, *, from_nothing: bool) -> None:
        hello = Hello(
            node=self._node, region=self._region, version=self._version,
            revision=0 if from_nothing else self._config.revision, digest="" if from_nothing else self._config.digest,
            role=self._role,
        )  # fmt: skip
        params = msgspec.to_builtins(hello)
        async with self._client.stream("GET", "/internal/v1/stream", params=params) as response:
            if response.status_code != 200:
                raise httpx.HTTPStatusError(
                    f"the control plane answered {response.status_code}", request=response.request, response=response
                )
            self.link.connected, self.link.last_error = True, None
            async for line in _lines(response):
                self.link.heard_at_s = time.time()
                answer = self._config.receive(_decoder.decode(line))
                if answer is not None:
                    await self.say(await self._confirmed(answer))
                for unsaid in list(self._unsaid.values()):
                    await self.say(unsaid)

    async def say(self, ack: Ack) -> None:
        """Tell the control plane what became of a revision. Raises ``httpx.HTTPError``."""
        if ack.error is not None:
            log.error("revision_refused", revision=ack.revision, error=ack.error)
        if ack.effective:
            self._unsaid[ack.revision] = ack
        response = await self._post("/internal/v1/acks", ack)
        if not response.is_server_error:
            self._unsaid.pop(ack.revision, None)
        response.raise_for_status()

    async def say_soon(self, ack: Ack) -> None:
        """The same, but who is away is told of cuts when it is back."""
        with contextlib.suppress(httpx.HTTPError):
            await self.say(ack)

    async def newest(self) -> Newest | None:
        """What the control plane, asked now, says should be in force here; ``None`` where it gives no answer."""
        try:
            response = await self._client.get("/internal/v1/newest", params={"node": self._node}, timeout=ASK_S)
            return _newest.decode(response.content) if response.status_code == 200 else None
        except (httpx.HTTPError, *UNREADABLE):
            return None

    async def _post(self, path: str, body: msgspec.Struct) -> httpx.Response:
        headers = {"content-type": "application/json"}
        return await self._client.post(path, content=msgspec.json.encode(body), headers=headers)


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """The lines of NDJSON. Split at LF alone: httpx's own lines also end at characters that JSON strings may hold."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise OutOfStepError(f"a line of more than {MAX_LINE_BYTES} bytes")
        for line in lines:
            if line:
                yield line
