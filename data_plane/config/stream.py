"""The connection to the control plane: one stream down, ACKs up. Nodes and agents connect; nothing connects to them."""

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
READ_TIMEOUT_S = 20.0
"""A stream without a message for this time is dead; heartbeats come every few seconds."""
REPORT_S = 10.0
LOG_AGAIN_S = 60.0
"""A failure that persists is logged again after this time."""
ASK_S = 2.0
_BACKOFF_S = (0.5, 10.0)


class Decided(NamedTuple):
    """Number of decisions since the start of a node."""

    decisions: int
    denied: int
    degraded: int


@dataclass
class Link:
    """The state of the connection, for ``/v1/status`` and the metrics."""

    connected: bool = False
    last_error: str | None = None
    reconnects: int = 0
    heard_at_s: float | None = None
    """When the last message came, epoch seconds."""


class ControlPlaneStream:
    """Keeps the configuration up to date; retries after every failure, with backoff and full jitter."""

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
        """Adds to an ACK what the region's store confirms."""
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"authorization": f"Bearer {credential}"},
            timeout=httpx.Timeout(5.0, read=READ_TIMEOUT_S),
            trust_env=False,
            verify=True if tls is None else tls,
        )
        self.link = Link()
        self._logged_s = 0.0
        """When a failure was logged last."""
        self.unsent: dict[int, Ack] = {}
        """ACKs with instants of share cuts that did not arrive, by revision; raises of shares wait for them."""

    async def run(self) -> None:
        """Stay connected until cancelled."""
        delay = _BACKOFF_S[0]
        from_scratch = False
        try:
            while True:
                try:
                    await self._follow(from_scratch=from_scratch)
                    from_scratch, delay = False, _BACKOFF_S[0]  # the control plane closed the stream
                    self.link.last_error = None
                except OutOfStepError as error:
                    # Retry at once and ask for everything; if that fails too, back off.
                    delay = _BACKOFF_S[0] if not from_scratch else min(delay * 2, _BACKOFF_S[1])
                    from_scratch = True
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
        """Report decisions every few seconds while connected; canaries are judged by them."""
        reported = self._decided()
        while True:
            await asyncio.sleep(REPORT_S)
            now = self._decided()
            if not self.link.connected or now.decisions == reported.decisions:
                continue
            since = NodeReport(
                node=self._node, decisions=now.decisions - reported.decisions,
                denied=now.denied - reported.denied, degraded=now.degraded - reported.degraded,
            )  # fmt: skip
            reported = now
            # a report that is lost is not sent again
            with contextlib.suppress(httpx.HTTPError):
                await self._post("/internal/v1/reports", since)

    def _failed(self, error: str) -> None:
        now_s = time.monotonic()
        if error != self.link.last_error or now_s >= self._logged_s + LOG_AGAIN_S:
            log.warning("control_plane_stream_ended", error=error, reconnects=self.link.reconnects)
            self._logged_s = now_s
        self.link.last_error = error

    async def _follow(self, *, from_scratch: bool) -> None:
        hello = Hello(
            node=self._node, region=self._region, version=self._version,
            revision=0 if from_scratch else self._config.revision, digest="" if from_scratch else self._config.digest,
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
                    await self.send(await self._confirmed(answer))
                for unsent in list(self.unsent.values()):
                    await self.send(unsent)

    async def send(self, ack: Ack) -> None:
        """Send an ACK. Raises ``httpx.HTTPError``."""
        if ack.error is not None:
            log.error("revision_refused", revision=ack.revision, error=ack.error)
        if ack.effective:
            self.unsent[ack.revision] = ack
        response = await self._post("/internal/v1/acks", ack)
        if not response.is_server_error:
            self.unsent.pop(ack.revision, None)
        response.raise_for_status()

    async def send_eventually(self, ack: Ack) -> None:
        """Send an ACK; instants of share cuts that do not arrive are sent again over the next stream."""
        with contextlib.suppress(httpx.HTTPError):
            await self.send(ack)

    async def newest(self) -> Newest | None:
        """Ask the control plane what should be in force here; ``None`` without an answer."""
        try:
            response = await self._client.get("/internal/v1/newest", params={"node": self._node}, timeout=ASK_S)
            return _newest.decode(response.content) if response.status_code == 200 else None
        except (httpx.HTTPError, *UNREADABLE):
            return None

    async def _post(self, path: str, body: msgspec.Struct) -> httpx.Response:
        headers = {"content-type": "application/json"}
        return await self._client.post(path, content=msgspec.json.encode(body), headers=headers)


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """The lines of NDJSON, split at LF only: httpx also splits at characters that JSON strings may contain."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise OutOfStepError(f"a line of more than {MAX_LINE_BYTES} bytes")
        for line in lines:
            if line:
                yield line
