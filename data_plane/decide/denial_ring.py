"""Denials on their way to a bounded ring in the region's store, where operators find them.

A decision leaves its parts here in less than a microsecond. Once a second they become records and are written, in
batches between which decisions go on; while the store is away they wait here. Each caller has room of its own, and
addresses without a key never take the room of clients: one that is denied all the time displaces no other.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice, zip_longest
from typing import Any, NamedTuple

import msgspec
import structlog

from data_plane.config.index import Principal
from data_plane.decide.pending_check import Refusal, Verdict, cause_of_denial, cause_of_refusal
from data_plane.store.packing import NEVER, UNKNOWN
from data_plane.store.ports import Argument, StoreUnavailableError
from data_plane.store.redis.store import RedisCounterStore
from data_plane.store.scripts import denials_script
from tidegate.contract.credentials import PREFIXES
from tidegate.contract.decision import Cause, CheckRequest
from tidegate.contract.decoding import UNREADABLE
from tidegate.contract.denials import KEY_SHOWN, Denial, DenialQuery, one_spelling
from tidegate.contract.limits import capacity

log = structlog.get_logger()
FLUSH_EVERY_S = 1.0
MOST_EACH = 8
"""Denials of one caller in one flush; those beyond it are counted."""
MOST_CALLERS = 500
"""Callers of one kind in one flush."""
CALLERS_A_BATCH = 20
REST_S = 0.001
"""The pause between two batches, for decisions."""
_LONG_SECRET = 24
"""The beginning of a shorter key is not shown: an attacker could guess the rest."""

CLIENTS, ADDRESSES = b"{tg:denials}:c", b"{tg:denials}:a"
LATEST, BY_MINUTE = b":l", b":m"
MOST_LATEST = 50
MOST_BY_MINUTE = 100
CALLER_BYTES = 32 * 1024
"""The store's memory for one caller's full ring, rounded up."""
KEPT_MS = 24 * 3_600_000
CALLERS_A_LOOK = 10
"""Callers' rings that are read in one call: a few milliseconds of the asking process."""
_decode = msgspec.msgpack.Decoder(Denial).decode


class CallersDenials(NamedTuple):
    """A caller and its denials as they are stored, oldest first."""

    name: str
    at_ms: int
    packed: list[bytes]


class Found(NamedTuple):
    """Denials, newest first; ``why_not_all`` says why there may be more."""

    denials: list[Denial]
    why_not_all: str | None


class Noted(NamedTuple):
    """One denial as the decision path leaves it, the arguments of :meth:`DenialRing.note`."""

    at_us: int
    principal: Principal | None
    request: CheckRequest
    request_id: str | None
    revision: int
    of: Verdict | Refusal | Cause
    endpoint: str | None = None
    policy: str | None = None
    requests: int = 1


class _Held:
    """One caller's denials since the last flush."""

    __slots__ = ("left_out", "noted")

    def __init__(self) -> None:
        self.noted: list[tuple[Any, ...]] = []
        """Members of :class:`Noted` as bare tuples, which cost a decision a third of what the class would."""
        self.left_out = 0


class DenialRing:
    """Takes this node's denials, and writes them to the store once a second."""

    def __init__(self, node: str, store: "RedisDenials") -> None:
        self._node = node
        self._store = store
        self._clients: dict[str, _Held] = {}
        self._addresses: dict[str, _Held] = {}
        self.kept = 0
        """Denials in the region's ring."""
        self.not_kept = 0
        """Denials beyond the bounds: of one caller, of one second, or of the time that the store was away."""

    def note(
        self, at_us: int, principal: Principal | None, request: CheckRequest, request_id: str | None, revision: int,
        of: Verdict | Refusal | Cause, endpoint: str | None = None, policy: str | None = None, requests: int = 1,
    ) -> None:  # fmt: skip
        """Take a denial; on the decision path."""
        if principal is None:
            held, name = self._addresses, request.ip or "unknown"
        else:
            held, name = self._clients, principal.client.client
        mine = held.get(name)
        if mine is None:
            if len(held) >= MOST_CALLERS:
                self.not_kept += 1
                return
            mine = held[name] = _Held()
        if len(mine.noted) < MOST_EACH:
            mine.noted.append((at_us, principal, request, request_id, revision, of, endpoint, policy, requests))
        else:
            mine.left_out += 1

    async def run(self) -> None:
        """Flush once a second, for ever."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            await self.flush()

    async def flush(self) -> None:
        """Write all denials. While the store is away, the first of each caller wait for it."""
        for held, are_clients in ((self._clients, True), (self._addresses, False)):
            waiting = iter(list(held))
            while names := list(islice(waiting, CALLERS_A_BATCH)):
                batch = {name: held.pop(name) for name in names}
                if not await self._write(batch, are_clients=are_clients):
                    self._put_back(held, batch)
                    return
                await asyncio.sleep(REST_S)

    async def _write(self, batch: Mapping[str, _Held], *, are_clients: bool) -> bool:
        try:
            await self._store.keep(list(self._callers(batch)), are_clients=are_clients)
        except StoreUnavailableError as error:
            log.debug("denials_wait", reason=error.reason, callers=len(batch))
            return False
        self.kept += sum(len(one.noted) for one in batch.values())
        self.not_kept += sum(one.left_out for one in batch.values())
        return True

    @staticmethod
    def _put_back(held: dict[str, _Held], batch: Mapping[str, _Held]) -> None:
        for name, before in batch.items():
            since = held.get(name)
            if since is not None:
                noted = before.noted + since.noted
                before.left_out += since.left_out + len(noted[MOST_EACH:])
                before.noted = noted[:MOST_EACH]
            held[name] = before

    def _callers(self, batch: Mapping[str, _Held]) -> Iterator[CallersDenials]:
        for name, held in batch.items():
            denials = [_denial(self._node, Noted._make(parts)) for parts in held.noted]
            denials[-1] = msgspec.structs.replace(denials[-1], left_out=held.left_out)
            yield CallersDenials(name, denials[-1].at_ms, [msgspec.msgpack.encode(one) for one in denials])


def _denial(node: str, noted: Noted) -> Denial:
    request, of = noted.request, noted.of
    about: dict[str, Any] = {
        "at_ms": noted.at_us // 1_000,
        "node": node,
        "revision": noted.revision,
        "request_id": noted.request_id,
        "client": None if noted.principal is None else noted.principal.client.client,
        "key": _shown(request.api_key),
        "ip": None if request.ip is None else one_spelling(request.ip),
        "requests": noted.requests,
        "cost": request.cost,
    }
    if isinstance(of, Refusal):
        cause = cause_of_refusal(of)
        reason_class = of.value.removeprefix("blocked_") if cause == "blocked" else None
        return Denial(**about, cause=cause, endpoint=request.endpoint, reason_class=reason_class)
    if isinstance(of, Verdict):
        return Denial(**{**about, **_of_verdict(of)})
    return Denial(**about, cause=of, endpoint=noted.endpoint or request.endpoint, policy=noted.policy)


def _of_verdict(verdict: Verdict) -> dict[str, Any]:
    limit_set = verdict.check.limit_set
    about: dict[str, Any] = {
        "cause": cause_of_denial(verdict),
        "endpoint": limit_set.endpoint,
        "cost": verdict.check.cost,
        "degraded": verdict.degraded,
    }
    if verdict.shown is None:
        policy = verdict.violated[0] if verdict.violated else None
        return {**about, "policy": policy, "retry_after_s": float(verdict.shed_s) or None}
    limit, outcome = limit_set.limits[verdict.shown], verdict.outcomes[verdict.shown]
    most = capacity(limit.alone)
    # rights that moved make it more or less than the region's own share, so the use of that share is unknown
    is_known = outcome.remaining != UNKNOWN and limit.strict is None
    return {
        **about,
        "policy": limit.rule.name,
        "limit": most,
        "used": max(0, most - outcome.remaining) if is_known else None,
        "retry_after_s": None if outcome.retry_us == NEVER else outcome.retry_us / 1_000_000,
    }


def _shown(api_key: str | None) -> str | None:
    """The beginning of a Tidegate key. Anything else that was sent as a key may be a foreign secret."""
    if api_key is None or len(api_key) < _LONG_SECRET or not api_key.startswith(PREFIXES["client_key"]):
        return None
    return api_key[:KEY_SHOWN]


class RedisDenials:
    """The region's ring in Redis, a list a caller. All keys share a slot, so that a batch is one script call.

    ``max_bytes`` bounds the ring in the store; a quarter of it is for addresses. A process that only reads needs no
    bound. Every method that asks the store raises ``StoreUnavailableError``.
    """

    def __init__(
        self, store: RedisCounterStore, max_bytes: int = 0, elapsed_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._most = {CLIENTS: max_bytes * 3 // 4 // CALLER_BYTES, ADDRESSES: max_bytes // 4 // CALLER_BYTES}
        self._elapsed_s = elapsed_s

    async def keep(self, callers: list[CallersDenials], *, are_clients: bool) -> None:
        """Store denials of clients, or of addresses without a key; the caller denied longest ago gives way."""
        index = CLIENTS if are_clients else ADDRESSES
        keys = [index, *chain.from_iterable(_rings(index, one.name.encode()) for one in callers)]
        arguments: list[Argument] = [
            self._most[index], MOST_LATEST, MOST_BY_MINUTE, KEPT_MS, index + b":", LATEST, BY_MINUTE,
        ]  # fmt: skip
        for one in callers:
            arguments += [one.name, one.at_ms, len(one.packed), *one.packed]
        await self._store.call_script(denials_script(), keys, arguments)

    async def find(self, query: DenialQuery, within_s: float) -> Found:
        """The denials that match, as many as can be read within ``within_s``; callers denied last are read first."""
        ends_s = self._elapsed_s() + within_s
        found: dict[Denial, Denial] = {}
        looked = 0
        rings = await self._to_look_at(query)
        while looked < len(rings):
            if looked and self._elapsed_s() >= ends_s:
                why = f"{looked // 2} of {len(rings) // 2} callers' denials were looked through in {within_s:g} s"
                return Found(_newest(found, query), why)
            commands = [("LRANGE", key, 0, -1) for key in rings[looked : looked + 2 * CALLERS_A_LOOK]]
            for packed in chain.from_iterable(await self._store.execute_all(commands)):
                denial = _fitting(packed, query)
                if denial is not None:
                    # in both rings, or written twice by a node that got no answer the first time
                    found.setdefault(msgspec.structs.replace(denial, left_out=0), denial)
            looked += len(commands)
            if found and query.request_id is not None:
                break
        return Found(_newest(found, query), None)

    async def _to_look_at(self, query: DenialQuery) -> list[bytes]:
        """The rings that may hold matches, the most recently denied callers first."""
        if query.client is not None:
            return list(_rings(CLIENTS, query.client.encode()))
        indexes = (CLIENTS, ADDRESSES)
        names = [await self._store.execute("ZREVRANGEBYSCORE", index, "+inf", query.since_ms) for index in indexes]
        in_turn = chain.from_iterable(zip_longest(*names))
        rings = (_rings(indexes[at % 2], name) for at, name in enumerate(in_turn) if name is not None)
        return list(chain.from_iterable(rings))


def _rings(index: bytes, name: bytes) -> tuple[bytes, bytes]:
    return b"%b:%b%b" % (index, name, LATEST), b"%b:%b%b" % (index, name, BY_MINUTE)


def _fitting(packed: bytes, query: DenialQuery) -> Denial | None:
    """The denial, if it matches the query; the bytes of most show at once that they do not."""
    for text in (query.request_id, query.ip, query.key and query.key[:KEY_SHOWN]):
        if text is not None and text.encode() not in packed:
            return None
    try:
        denial = _decode(packed)
    except UNREADABLE:
        return None  # of another version
    return denial if query.fits(denial) else None


def _newest(found: Mapping[Denial, Denial], query: DenialQuery) -> list[Denial]:
    return sorted(found.values(), key=lambda denial: denial.at_ms, reverse=True)[: query.most]
