"""The connection to the control plane: one stream of revisions down, ACKs up.

Nodes and agents connect; nothing connects to them. ``ControlPlaneStream`` reads the lines, ``ConfigService`` collects
the documents of a revision, verifies them, puts the index in force and answers with an ACK.
"""

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import aiohttp
import msgspec
import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from data_plane.config.index import ConfigSet, InvalidConfigError, RuleIndex
from data_plane.process import HTTP_ERRORS, HttpClient, HttpStatusError
from tidegate.contract.config import (
    Ack,
    Begin,
    Change,
    Commit,
    Documents,
    Heartbeat,
    HeldBack,
    StreamMessage,
    signed_head,
)
from tidegate.contract.decoding import UNREADABLE
from tidegate.contract.status import Hello, Newest, NodeReport, Role

log = structlog.get_logger()
_decoder = msgspec.json.Decoder(StreamMessage)
_newest = msgspec.json.Decoder(Newest)

MAX_DOCUMENTS = 5_000_000
MAX_LINE_BYTES = 64 * 1024 * 1024
READ_TIMEOUT_S = 20.0
"""A stream without a message for this time is dead; heartbeats come every few seconds."""
REPORT_S = 10.0
LOG_AGAIN_S = 60.0
"""A failure that persists is logged again after this time."""
ASK_S = 2.0
_BACKOFF_S = (0.5, 10.0)


class OutOfStepError(Exception):
    """A message does not follow the configuration in force: connect again and ask for everything."""


class Decided(NamedTuple):
    """Number of decisions since the start of a node."""

    decisions: int
    denied: int
    degraded: int


@dataclass
class StreamState:
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
        config: "ConfigService",
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
        timeout = aiohttp.ClientTimeout(connect=5.0, sock_read=READ_TIMEOUT_S)
        self._client = HttpClient(timeout, tls, url, credential)
        self.state = StreamState()
        self._logged_s = 0.0
        """When a failure was logged last."""
        self.unsent: dict[int, Ack] = {}
        """ACKs with instants of share cuts that did not arrive, by revision; raises of shares wait for them."""

    async def run(self) -> None:
        """Stay connected until cancelled."""
        delay = _BACKOFF_S[0]
        from_scratch = False
        while True:
            try:
                await self._follow(from_scratch=from_scratch)
                from_scratch, delay = False, _BACKOFF_S[0]  # the control plane closed the stream
                self.state.last_error = None
            except OutOfStepError as error:
                # Retry at once and ask for everything; if that fails too, back off.
                delay = _BACKOFF_S[0] if not from_scratch else min(delay * 2, _BACKOFF_S[1])
                from_scratch = True
                self.note_failure(str(error))
            except (*HTTP_ERRORS, *UNREADABLE) as error:
                delay = _BACKOFF_S[0] if self.state.connected else min(delay * 2, _BACKOFF_S[1])
                self.note_failure(f"{type(error).__name__}: {error}")
            self.state.connected = False
            self.state.reconnects += 1
            await asyncio.sleep(random.uniform(0, delay))  # noqa: S311  jitter, not a secret

    async def report(self) -> None:
        """Report decisions every few seconds while connected; canaries are judged by them."""
        reported = self._decided()
        while True:
            await asyncio.sleep(REPORT_S)
            now = self._decided()
            if not self.state.connected or now.decisions == reported.decisions:
                continue
            since = NodeReport(
                node=self._node, decisions=now.decisions - reported.decisions,
                denied=now.denied - reported.denied, degraded=now.degraded - reported.degraded,
            )  # fmt: skip
            reported = now
            # a report that is lost is not sent again
            with contextlib.suppress(*HTTP_ERRORS):
                await self._client.ask("POST", "/internal/v1/reports", json=since)

    def note_failure(self, error: str) -> None:
        """Remember why the stream is down; log it when it changes, and once a minute."""
        now_s = time.monotonic()
        if error != self.state.last_error or now_s >= self._logged_s + LOG_AGAIN_S:
            log.warning("control_plane_stream_ended", error=error, reconnects=self.state.reconnects)
            self._logged_s = now_s
        self.state.last_error = error

    async def _follow(self, *, from_scratch: bool) -> None:
        hello = Hello(
            node=self._node, region=self._region, version=self._version,
            revision=0 if from_scratch else self._config.revision, digest="" if from_scratch else self._config.digest,
            role=self._role,
        )  # fmt: skip
        params = msgspec.to_builtins(hello)
        async with self._client.request("GET", "/internal/v1/stream", params=params) as response:
            if response.status != 200:
                raise HttpStatusError(response.status)
            self.state.connected, self.state.last_error = True, None
            async for line in _lines(response):
                self.state.heard_at_s = time.time()
                answer = self._config.receive(_decoder.decode(line))
                if answer is not None:
                    await self.send(await self._confirmed(answer))
                for unsent in list(self.unsent.values()):
                    await self.send(unsent)

    async def send(self, ack: Ack) -> None:
        """Send an ACK. Raises ``HTTP_ERRORS``."""
        if ack.error is not None:
            log.error("revision_refused", revision=ack.revision, error=ack.error)
        if ack.effective:
            self.unsent[ack.revision] = ack
        try:
            await self._client.ask("POST", "/internal/v1/acks", json=ack)
        except HttpStatusError as error:
            if error.status < 500:
                self.unsent.pop(ack.revision, None)
            raise
        self.unsent.pop(ack.revision, None)

    async def send_eventually(self, ack: Ack) -> None:
        """Send an ACK; instants of share cuts that do not arrive are sent again over the next stream."""
        with contextlib.suppress(*HTTP_ERRORS):
            await self.send(ack)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def newest(self) -> Newest | None:
        """Ask the control plane what should be in force here; ``None`` without an answer."""
        try:
            timeout = aiohttp.ClientTimeout(connect=ASK_S, sock_read=ASK_S)
            params = {"node": self._node}
            return _newest.decode(await self._client.ask("GET", "/internal/v1/newest", params=params, timeout=timeout))
        except (*HTTP_ERRORS, *UNREADABLE):
            return None


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The lines of NDJSON. Raises ``OutOfStepError`` for one of more than ``MAX_LINE_BYTES``."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise OutOfStepError(f"a line of more than {MAX_LINE_BYTES} bytes")
        for line in lines:
            if line:
                yield line


class Snapshot(NamedTuple):
    """A configuration with the control plane's signature over revision and digest.

    ``held_back`` is what a canary keeps from it; it is not signed, and only status reports use it.
    """

    revision: int
    signature: str
    config: ConfigSet
    held_back: HeldBack | None = None

    @property
    def whole_revision(self) -> int:
        """The newest revision that this configuration contains as a whole."""
        return self.revision if self.held_back is None else self.held_back.whole


Applied = Callable[[RuleIndex, Snapshot], None]
"""A part of the process takes over a new index, before the next decision."""


class ConfigService:
    """Holds the configuration in force. Each of ``on_applied`` receives every new index with its snapshot, in order."""

    def __init__(self, node: str, region: str, public_key: Ed25519PublicKey, *on_applied: Applied) -> None:
        self._node = node
        self._public_key = public_key
        self._on_applied = on_applied
        self._index = RuleIndex.empty(region)
        self._snapshot = Snapshot(0, "", ConfigSet.empty())
        self._begun: Begin | None = None
        self._changes: list[Change] = []
        self.refused: Ack | None = None
        """The last refused revision, until another one is applied."""
        self.refusals = 0
        """Revisions refused since the start."""
        self.wanted_revision = 0
        """The revision that the control plane last named for this node."""

    @property
    def revision(self) -> int:
        """The revision in force; 0 before the first."""
        return self._snapshot.revision

    @property
    def held_back(self) -> HeldBack | None:
        """What a canary keeps from this node; ``None`` without a canary, and in its stage."""
        return self._snapshot.held_back

    @property
    def whole_revision(self) -> int:
        """The newest revision that is in force as a whole; decisions report it."""
        return self._snapshot.whole_revision

    @property
    def digest(self) -> str:
        """The digest of the configuration in force."""
        return self._snapshot.config.digest

    def restore(self, snapshot: Snapshot) -> None:
        """Put a stored snapshot in force. Raises ``InvalidConfigError`` if its signature is wrong."""
        self._verify(snapshot.revision, snapshot.config.digest, snapshot.signature)
        self._apply(RuleIndex.of(self._index.book.region, snapshot.config), snapshot)

    def receive(self, message: StreamMessage) -> Ack | None:
        """Take one message of the stream. Returns an ACK for a commit, or a NACK with ``error`` set.

        Raises ``OutOfStepError`` if the stream must start again.
        """
        if isinstance(message, Begin | Heartbeat):
            self.wanted_revision = message.revision
        if isinstance(message, Begin):
            if message.base is not None and message.base != self.revision:
                raise OutOfStepError(f"a delta on revision {message.base}, but {self.revision} is in force")
            self._begun, self._changes = message, []
        elif isinstance(message, Documents):
            self._changes.extend(message.changes)
            if len(self._changes) > MAX_DOCUMENTS:
                raise OutOfStepError(f"more than {MAX_DOCUMENTS} documents")
        elif isinstance(message, Commit):
            return self._commit(message)
        elif isinstance(message, Heartbeat) and self._differs(message):
            raise OutOfStepError("the control plane has other content under this revision")
        return None

    def _differs(self, heartbeat: Heartbeat) -> bool:
        if self.refused is not None and self.refused.revision == heartbeat.revision:
            return False  # it was sent already, and would be refused again
        return 0 < heartbeat.revision <= self.revision and heartbeat.digest != self.digest

    def _commit(self, commit: Commit) -> Ack:
        begun, changes = self._begun, self._changes
        self._begun, self._changes = None, []
        if begun is None or begun.revision != commit.revision:
            raise OutOfStepError("a commit without its beginning")
        try:
            self._put_in_force(begun, changes, commit)
        except InvalidConfigError as error:
            self.refusals += 1
            self.refused = Ack(
                node=self._node, revision=commit.revision, digest=commit.digest, error=str(error)[:1_000]
            )
            return self.refused
        self.refused = None
        return Ack(node=self._node, revision=self.revision, digest=self.digest)

    def _put_in_force(self, begun: Begin, changes: Iterable[Change], commit: Commit) -> None:
        whole = begun.base is None
        config = (ConfigSet.empty() if whole else self._snapshot.config).with_changes(changes)
        if config.digest != commit.digest:
            raise OutOfStepError(f"revision {commit.revision} does not have the digest that was announced")
        self._verify(commit.revision, commit.digest, commit.signature)
        index = RuleIndex.empty(self._index.book.region) if whole else self._index
        snapshot = Snapshot(commit.revision, commit.signature, config, begun.held_back)
        self._apply(index.with_changes(changes, config), snapshot)

    def _verify(self, revision: int, digest: str, signature: str) -> None:
        try:
            self._public_key.verify(bytes.fromhex(signature), signed_head(revision, digest))
        except (InvalidSignature, ValueError):
            raise InvalidConfigError(f"revision {revision} is not signed by our control plane") from None

    def _apply(self, index: RuleIndex, snapshot: Snapshot) -> None:
        self._index, self._snapshot = index, snapshot
        for on_applied in self._on_applied:
            on_applied(index, snapshot)
