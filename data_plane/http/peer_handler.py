"""Receives other regions' messages: the signature proves the sender before a byte is unpacked."""

import asyncio
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_plane.config.index import RuleIndex
from data_plane.http.answers import Answer, InputError, json_answer, problem
from data_plane.http.caller import Headers, header
from data_plane.replicate.receiver import Receiver
from data_plane.rights.exchange import RightsExchange
from data_plane.store.ports import Clock, StoreUnavailableError
from tidegate.contract.counts import MAX_AGE_S, MAX_CELLS, PROTOCOL_VERSION, SLICES, Cell, Counts, signed_counts
from tidegate.contract.credentials import is_signed_by
from tidegate.contract.decoding import UNREADABLE, InflateError, InflatesTooFarError, inflated
from tidegate.contract.rights import (
    MAX_ASKS,
    MAX_KEY_BYTES,
    MAX_QUANTA,
    MAX_UNITS,
    RIGHTS_VERSION,
    Ask,
    Asks,
    signed_asks,
    signed_gifts,
)
from tidegate.http_front.exchange import ELSEWHERE, Exchange, Route

log = structlog.get_logger()
T = TypeVar("T")

TARGETS = (b"/internal/v1/counts", b"/internal/v1/rights")
REFUSALS = (
    "unknown_region", "bad_signature", "wrong_region", "malformed", "version", "too_large", "too_old", "implausible",
)  # fmt: skip
LOG_EVERY_US = 10_000_000
MAX_NAME = 64
MAX_BODY_BYTES = 1024 * 1024
MAX_UNPACKED_BYTES = 1024 * 1024
MAX_EPOCH_BYTES = 100
"""The longest name of a region or of a store epoch."""
MAX_FIGURE = 2**53
"""The largest whole number that scripts compute with exactly: they use doubles."""
_counts = msgspec.msgpack.Decoder(Counts)
_asks = msgspec.msgpack.Decoder(Asks)


class PeerFastPath:
    """``POST /internal/v1/counts`` and ``/internal/v1/rights``, answered without FastAPI."""

    def __init__(self, handler: "PeerHandler") -> None:
        self._handler = handler
        self._under_way: set[asyncio.Task[None]] = set()
        self.routes: Sequence[Route] = (
            Route("counts", MAX_BODY_BYTES, Exchange, partial(self._begin, handler.counts)),
            Route("rights", MAX_BODY_BYTES, Exchange, partial(self._begin, handler.rights)),
        )

    def find(self, method: bytes, target: bytes) -> int:
        """The place of a route."""
        return TARGETS.index(target) if method == b"POST" and target in TARGETS else ELSEWHERE

    def too_much_status(self, status: int, target: bytes) -> int:
        """The status as it is; a body that is too large is counted."""
        if status == 413 and target in TARGETS:
            self._handler.too_large()
        return status

    def _begin(self, answer: Callable[[Headers, bytes], Awaitable[Answer]], exchange: Exchange) -> None:
        task = asyncio.create_task(_serve(answer, exchange))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)


async def _serve(answer: Callable[[Headers, bytes], Awaitable[Answer]], exchange: Exchange) -> None:
    try:
        given = await answer(exchange.headers, exchange.body)
    except Exception:  # a boundary: a mistake costs one message, not the agent
        log.exception("peer_message_failed", target=exchange.path.decode("latin-1"))
        given = problem(500, "The agent failed to answer.")
    exchange.respond(given.status, given.headers, given.body)


class PeerHandler:
    """``POST /internal/v1/counts`` and ``/internal/v1/rights``. A region's key speaks only for that region."""

    def __init__(
        self, region: str, key: Ed25519PrivateKey, index: Callable[[], RuleIndex], receiver: Receiver,
        rights: RightsExchange, clock: Clock,
    ) -> None:  # fmt: skip
        self._region = region
        self._key = key
        self._index = index
        self._receiver = receiver
        self._rights = rights
        self._clock = clock
        # from 0: Prometheus sees no increase in a counter that appears with its first refusal
        self.refused_by_reason: Counter[str] = Counter(dict.fromkeys(REFUSALS, 0))
        self._log_from_us = 0
        self._left_out = 0
        self.received_bytes = 0
        self.received = 0

    async def counts(self, headers: Headers, body: bytes) -> Answer:
        """Verify, unpack within bounds, merge."""
        try:
            sender = self._sender(headers, body, signed_counts(self._region, body))
            counts = self._read(_counts, body)
            self._fits(sender, counts.region, counts.version, PROTOCOL_VERSION, counts.sent_at)
            if len(counts.cells) > MAX_CELLS:
                raise self._refused("too_large", 413, f"more than {MAX_CELLS} cells")
            if not _is_storable(counts):
                raise self._refused("implausible", 400, "a name or a figure that no region has")
            return json_answer(await self._receiver.receive(counts))
        except InputError as error:
            self._log_refused(headers, error)
            return error.answer()
        except StoreUnavailableError as error:
            return problem(503, f"the store of this region is away: {error.reason}")

    async def rights(self, headers: Headers, body: bytes) -> Answer:
        """Verify, unpack within bounds, give; the answer is signed as well."""
        try:
            sender = self._sender(headers, body, signed_asks(self._region, body))
            asks = self._read(_asks, body)
            self._fits(sender, asks.region, asks.version, RIGHTS_VERSION, asks.sent_at)
            if len(asks.asks) > MAX_ASKS:
                raise self._refused("too_large", 413, f"more than {MAX_ASKS} questions")
            if not 0 < asks.incarnation < 2**32 or not all(map(_is_plausible, asks.asks)):
                raise self._refused("implausible", 400, "a question that no region has cause to ask")
            gifts = zlib.compress(msgspec.msgpack.encode(await self._rights.give(asks)), level=1)
        except InputError as error:
            self._log_refused(headers, error)
            return error.answer()
        except StoreUnavailableError as error:
            return problem(503, f"the store of this region is away: {error.reason}")
        signature = self._key.sign(signed_gifts(sender, body, gifts)).hex().encode()
        lines = b"content-type: application/octet-stream\r\nx-tidegate-signature: " + signature + b"\r\n"
        return Answer(200, lines, gifts)

    def too_large(self) -> None:
        """Count a body that was refused before it was read to the end."""
        self.refused_by_reason["too_large"] += 1

    def _log_refused(self, headers: Headers, error: InputError) -> None:
        """Log the claimed sender of a refused message; a sample, since anyone may send such messages."""
        now_us = self._clock.now_us()
        if now_us < self._log_from_us:
            self._left_out += 1
            return
        claims = _claimed(headers)[:MAX_NAME]
        log.warning("peer_message_refused", claims=claims, why=error.detail, left_out=self._left_out)
        self._log_from_us, self._left_out = now_us + LOG_EVERY_US, 0

    def _sender(self, headers: Headers, body: bytes, signed: bytes) -> str:
        name = _claimed(headers)
        region = self._index().book.regions.get(name)
        keys = () if region is None or name == self._region else region.keys_at(self._clock.now_us() / 1e6)
        if not keys:
            raise self._refused("unknown_region", 401, "no such peer region")
        try:
            signature = bytes.fromhex((header(headers, b"x-tidegate-signature") or b"").decode("latin-1"))
        except ValueError:
            signature = b""
        if not is_signed_by(keys, signature, signed):
            raise self._refused("bad_signature", 401, "the signature does not hold")
        self.received += 1
        self.received_bytes += len(body)
        return name

    def _read(self, decoder: msgspec.msgpack.Decoder[T], body: bytes) -> T:
        try:
            return decoder.decode(inflated(body, MAX_UNPACKED_BYTES))
        except InflatesTooFarError:
            raise self._refused("too_large", 413, f"more than {MAX_UNPACKED_BYTES} bytes unpacked") from None
        except (InflateError, *UNREADABLE) as error:
            raise self._refused("malformed", 400, f"not a message between regions: {error}") from error

    def _fits(self, sender: str, region: str, version: int, known_version: int, sent_at: float) -> None:
        if region != sender:
            raise self._refused("wrong_region", 403, "a region speaks only for itself")
        if version != known_version:
            raise self._refused("version", 400, f"protocol version {version} is not {known_version}")
        if not abs(sent_at - self._clock.now_us() / 1e6) <= MAX_AGE_S:
            raise self._refused("too_old", 400, "sent too long ago, or from the future")

    def _refused(self, reason: str, status: int, detail: str) -> InputError:
        self.refused_by_reason[reason] += 1
        return InputError(status, detail)


def _claimed(headers: Headers) -> str:
    return (header(headers, b"x-tidegate-region") or b"").decode("latin-1")


def _is_storable(counts: Counts) -> bool:
    """Whether every figure fits the scripts' fields."""
    return (
        len(counts.incarnation.encode()) <= MAX_EPOCH_BYTES
        and len(counts.of.encode()) <= 2 * MAX_EPOCH_BYTES
        and len(counts.complete) <= SLICES
        and all(0 <= as_of_us < MAX_FIGURE for _, as_of_us in counts.complete)
        and all(map(_is_storable_cell, counts.cells))
    )


def _is_storable_cell(cell: Cell) -> bool:
    return (
        0 <= cell.returned <= cell.taken < MAX_FIGURE
        and 0 <= cell.window < MAX_FIGURE
        and 0 < len(cell.key) <= MAX_KEY_BYTES
    )


def _is_plausible(ask: Ask) -> bool:
    return (
        0 < len(ask.key) <= MAX_KEY_BYTES
        and 0 <= ask.id < 2**47
        and 0 <= ask.to_incarnation < 2**32
        and all(0 <= figure < MAX_QUANTA for figure in (ask.quanta, ask.unit))
        and all(0 <= figure < MAX_UNITS for figure in (ask.units, ask.have, ask.rate, ask.size))
    )
