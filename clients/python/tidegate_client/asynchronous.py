"""``AsyncTidegate``: the client, for asyncio. The synchronous one runs it on a thread of its own."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Container, Iterable, Mapping
from types import TracebackType
from typing import Self

import msgspec

from tidegate_client.batching import Batcher, understood
from tidegate_client.credentials import RefusedKeyError, key_in
from tidegate_client.leases import Account, Ending, Lease, LeaseBook, Repeated, is_short, is_whole
from tidegate_client.messages import (
    Check,
    Decision,
    GarbledAnswerError,
    InvalidCheckError,
    encoded,
    read_lease,
    read_reservation,
    refusal,
)
from tidegate_client.nodes import Answered, NoAnswerError, Nodes
from tidegate_client.options import Options, UnavailableError
from tidegate_client.reservations import Reservation, Settlements

NO_LEASE_FOR_S = 5.0
"""How long nobody asks again for a lease that a node cannot give."""
LEASE_AGAIN_AFTER_S = 0.2
"""How long nobody asks again when there was no answer, or when the node's store was away."""
MOST_RETURNS = MOST_TOLD = 100
MOST_MISTAKES_TOLD = 100
NOT_TO_BE_TOLD = frozenset({401, 403, 404})
"""How nodes answer who may not tell them what was denied here, and nodes of a version that does not ask."""
_log = logging.getLogger("tidegate_client")


class AsyncTidegate:
    """Ask Tidegate, on one event loop at a time: on another one (``asyncio.run`` again, a test's) it connects anew.

    ``now`` is a clock that only goes forward, in seconds.
    """

    def __init__(
        self, options: Options, *, now: Callable[[], float] = time.monotonic, lock: "threading.Lock | None" = None
    ) -> None:
        self.options = options
        self._now = now
        self._lock = lock or threading.Lock()
        self.nodes = Nodes(options, now)
        self.book = LeaseBook(
            lease_s=options.lease_s, after_per_s=options.lease_after_per_s, max_units=options.max_lease_units,
            remember_s=options.remember_denials_s, most=options.max_accounts,
        )  # fmt: skip
        self.failures = 0
        self._told_mistakes: set[str] = set()
        self._tells = True
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begin()

    def _begin(self) -> None:
        """What runs on a loop, with nothing under way."""
        self.batcher = Batcher(self.nodes.post, self.options.max_batch)
        self._renewals: dict[Check, asyncio.Task[Decision | None]] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._returning: set[asyncio.Task[None]] = set()
        self.settlements = Settlements(self.nodes.post, self.options.timeout_s)

    def _follow_loop(self) -> None:
        """Begin afresh where another loop runs than before: what was under way there will not end here."""
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        if self._loop is not None:
            self.nodes.forget()
            self._begin()
            with self._lock:
                self.book.forget_asking()
        self._loop = loop

    async def __aenter__(self) -> Self:
        """Ready at once: connections are made when they are needed."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.aclose()

    async def check(
        self, *, api_key: str | None = None, client: str | None = None, ip: str | None = None,
        method: str | None = None, path: str | None = None, endpoint: str | None = None,
        attributes: Mapping[str, str] | None = None, cost: int = 1,
    ) -> Decision:  # fmt: skip
        """May this request pass? Raises ``InvalidCheckError`` where the check itself is wrong, and
        ``UnavailableError`` where no node answers and the policy is ``raise``.
        """
        check = Check.of(
            api_key=api_key, client=client, ip=ip, method=method, path=path, endpoint=endpoint, attributes=attributes
        )
        return await self.decide(check, cost)

    async def check_many(self, checks: Iterable[tuple[Check, int]]) -> list[Decision | InvalidCheckError]:
        """Many at once, in order; a wrong one gets its error in its place."""
        answers = await asyncio.gather(*(self.decide(check, cost) for check, cost in checks), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, InvalidCheckError):
                raise answer
        return [answer for answer in answers if isinstance(answer, (Decision, InvalidCheckError))]

    async def authorize(
        self, *, method: str, path: str, headers: Iterable[tuple[str, str]] = (), ip: str | None = None, cost: int = 1
    ) -> Decision:
        """The same for a request as it came in: its key is in ``X-API-Key`` or in ``Authorization: Bearer``.

        ``path`` is that of the request line. With two different keys the request is refused (401).
        """
        try:
            api_key = key_in(headers)
        except RefusedKeyError as error:
            return refusal(401, error.error, str(error))
        return await self.check(api_key=api_key, ip=ip, method=method, path=path, cost=cost)

    async def decide(self, check: Check, cost: int = 1) -> Decision:
        """``check`` for a check that is made already: the fastest way."""
        if self.options.leases or self.options.remember_denials_s:
            with self._lock:
                decision = self.book.take(check, cost, self._now()) if is_whole(cost) else None
            if decision is not None:
                if self.book.low:
                    self.renew_low()
                return decision
        return await self.ask(check, cost)

    async def ask(self, check: Check, cost: int) -> Decision:
        """Decide with the help of a node, within the time that is given."""
        self._follow_loop()
        if self.book.has_repeated:
            self._begin_telling()
        try:
            async with asyncio.timeout(self.options.timeout_s):
                if self.options.leases and is_whole(cost) and is_short(check):
                    decision = await self._by_lease(check, cost)
                    if decision is not None:
                        return decision
                return await self._by_node(check, cost)
        except (NoAnswerError, TimeoutError) as error:
            self.failures += 1
            return self.unanswered(str(error) or "no answer in time")

    @contextlib.asynccontextmanager
    async def reserve(
        self, estimate: int, *, ttl_s: float = 60.0, api_key: str | None = None, client: str | None = None,
        ip: str | None = None, method: str | None = None, path: str | None = None, endpoint: str | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Reservation]:  # fmt: skip
        """Take ``estimate`` units now; set ``cost`` on what you get, and the difference is settled at the end.

        Left by an exception, all is given back. Not settled at all, the estimate stands. A settlement without an
        answer is sent again for a while, in the background: nodes take it once.
        """
        check = Check.of(
            api_key=api_key, client=client, ip=ip, method=method, path=path, endpoint=endpoint, attributes=attributes
        )
        body = encoded(check, {"cost": estimate, "ttl_s": ttl_s})
        self._follow_loop()
        text: str | None = None
        try:
            async with asyncio.timeout(self.options.timeout_s):
                answered = await self.nodes.post("/v1/reservations", body)
            decision = understood(answered)
            held = read_reservation(answered.body)
            text = held.reservation
            reservation = Reservation(decision, held.reserved)
        except (NoAnswerError, GarbledAnswerError, TimeoutError) as error:
            self.failures += 1
            reservation = Reservation(self.unanswered(str(error)), 0)
        try:
            yield reservation
        except BaseException:
            if text is not None:
                await self.settlements.settle(text, 0)
            raise
        if text is not None and reservation.cost is not None:
            await self.settlements.settle(text, reservation.cost)

    async def aclose(self) -> None:
        """Return what is held, then close the connections."""
        self._follow_loop()
        if self._keeper is not None:
            self._keeper.cancel()
        tasks = [*self._renewals.values(), *([self._keeper] if self._keeper is not None else []), *self._returning]
        await asyncio.gather(*tasks, return_exceptions=True)
        with self._lock:
            endings = self.book.close(self._now())
            repeated = self.book.repeated()
        await self._return(endings)
        await self._tell(repeated)
        await self.settlements.aclose()
        await self.batcher.aclose()
        await self.nodes.aclose()

    def renew_low(self) -> None:
        """Ask for the next lease of every account that runs low. On the loop's own thread."""
        self._follow_loop()
        with self._lock:
            low, self.book.low = self.book.low, []
        for check in low:
            if check not in self._renewals:
                self._begin_renewal(check, 1)

    async def _by_lease(self, check: Check, cost: int) -> Decision | None:
        """Wait for a lease if one is on its way or worth asking for; ``None``: ask for this check alone."""
        now = self._now()
        with self._lock:
            account = self.book.note(check, cost, now)
            wants = self.book.wants_lease(account, now)
        if wants and check not in self._renewals:
            self._begin_renewal(check, cost)
        renewal = self._renewals.get(check)
        if renewal is None:
            return None
        denied = await asyncio.shield(renewal)
        if denied is not None:
            return denied
        with self._lock:
            return self.book.take(check, cost, self._now())

    def _begin_renewal(self, check: Check, cost: int) -> None:
        self._renewals[check] = asyncio.create_task(self._renew(check, cost))
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())

    async def _renew(self, check: Check, cost: int) -> Decision | None:
        """Ask for the account's next lease; what the node said if it denied even one unit."""
        now, renewals = self._now(), self._renewals
        with self._lock:
            account = self.book.note(check, 0, now)
            units = self.book.units_to_ask(account, cost, now)
        try:
            body = encoded(check, {"units": units, "ttl_s": self.options.lease_s})
            return self._leased(account, await self.nodes.post("/v1/leases", body), now)
        except (NoAnswerError, GarbledAnswerError, InvalidCheckError):
            account.not_before = self._now() + LEASE_AGAIN_AFTER_S
            return None
        finally:
            # Together, and with nothing awaited after them: whoever finds the new lease low may begin the next renewal.
            del renewals[check]
            account.asking = False

    def _leased(self, account: Account, answered: Answered, asked_at: float) -> Decision | None:
        decision = understood(answered)
        lease = read_lease(answered.body)
        with self._lock:
            if not decision.allowed:
                self.book.denied(account, decision, 1, asked_at)
                return decision
            if not lease.granted:
                account.not_before = asked_at + NO_LEASE_FOR_S
                return None
            held = msgspec.structs.replace(decision, source="lease")
            lasts_s = min(lease.expires_in_s, self.options.lease_s)
            endings = self.book.granted(
                account, Lease(answered.origin, lease.lease, lease.granted, asked_at, lasts_s, held)
            )
        if endings:
            returning = asyncio.create_task(self._return(endings))
            self._returning.add(returning)
            returning.add_done_callback(self._returning.discard)
        return None

    async def _by_node(self, check: Check, cost: int) -> Decision:
        asked_at = self._now()
        decision = await self.batcher.decide(check, cost)
        if not decision.allowed and self.options.remember_denials_s and cost and is_short(check):
            with self._lock:
                self.book.denied(self.book.note(check, 0, asked_at), decision, cost, asked_at)
        return decision

    async def _keep(self) -> None:
        """Return leases whose time ends, as long as this loop is the client's."""
        while asyncio.get_running_loop() is self._loop:
            await asyncio.sleep(self.options.lease_s / 20)
            with self._lock:
                endings = self.book.due(self._now())
            await self._return(endings)

    async def _return(self, endings: list[Ending]) -> None:
        """Give back what was not spent. A return that fails is not repeated: the units are lost, never used twice."""
        for origin in {ending.origin for ending in endings}:
            unused = [{"lease": one.token, "unused": one.unused} for one in endings if one.origin == origin]
            for first in range(0, len(unused), MOST_RETURNS):
                part = {"returns": unused[first : first + MOST_RETURNS]}
                with contextlib.suppress(NoAnswerError):
                    await self.nodes.post("/v1/leases/return", msgspec.json.encode(part), origin=origin)

    def _begin_telling(self) -> None:
        with self._lock:
            repeated = self.book.repeated()
        telling = asyncio.create_task(self._tell(repeated))
        self._returning.add(telling)
        telling.add_done_callback(self._returning.discard)

    async def _tell(self, repeated: list[Repeated]) -> None:
        """Tell a node what was denied here. What does not arrive is not repeated: better too little than twice."""
        for first in range(0, len(repeated) if self._tells else 0, MOST_TOLD):
            part = [one.members() for one in repeated[first : first + MOST_TOLD]]
            with contextlib.suppress(NoAnswerError, UnicodeEncodeError):
                told = await self.nodes.post("/v1/denials", msgspec.json.encode({"denials": part}))
                self._tells = told.status not in NOT_TO_BE_TOLD

    def mistaken(self, error: InvalidCheckError, fixed: Container[str]) -> Decision | None:
        """What the policy says where a member of the check is wrong that the application has ``fixed`` for a route.

        ``None`` where it may have been the end user. Said once in the log: it is a mistake of the set-up.
        Raises ``UnavailableError`` when the policy is ``raise``.
        """
        if error.field is None or error.field not in fixed:
            return None
        if str(error) not in self._told_mistakes and len(self._told_mistakes) < MOST_MISTAKES_TOLD:
            self._told_mistakes.add(str(error))
            _log.error("requests are not limited as meant: %s", error)
        return self.unanswered(str(error))

    def unanswered(self, reason: str) -> Decision:
        """What the policy says when no node does. Raises ``UnavailableError``."""
        policy = self.options.on_failure
        if policy == "raise":
            raise UnavailableError(reason)
        return Decision(
            allowed=policy == "open", status=200 if policy == "open" else 503, degraded=True, source="policy",
            error=None if policy == "open" else "rate_limiter_unavailable",
            message=None if policy == "open" else "The rate limiter cannot be reached.",
        )  # fmt: skip
