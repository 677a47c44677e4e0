"""Leases and reservations: take units now, give back or charge the difference later, each at most once."""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from data_plane.config.index import RuleIndex
from data_plane.config.limit_set import NO_LIMITS
from data_plane.config.limits_of_keys import params_in_force
from data_plane.decide.check_resolution import Anonymous, resolve
from data_plane.decide.pending_check import PendingCheck, Refusal, ResolvedCheck, Verdict, conclude
from data_plane.holds.signatures import Seals
from data_plane.holds.tokens import (
    Hold,
    Kind,
    first_ask,
    next_ask,
    spend_within_us,
    why_not_leasable,
)
from data_plane.store.packing import Outcome, without_rights
from data_plane.store.ports import CallbackCheck, Clock, CounterStore, RightsReader, StoreUnavailableError
from data_plane.store.subject_bounds import SubjectBounds
from data_plane.usage.tally import UsageTally
from tidegate.contract.decision import CheckRequest
from tidegate.contract.holds import Asker, LeaseRequest, ReservationRequest

ID_BYTES = 12
MOST_ATTEMPTS = 4


class HoldEndedError(Exception):
    """The hold's time is over, or it was settled otherwise before."""


class HoldStore(Protocol):
    """The store's side of what comes back. Every method raises ``StoreUnavailableError``."""

    async def give_back(self, hold: Hold, cost: int, remember_ms: int) -> bool:
        """Return ``cost`` to the counters where it still counts; once, even when asked again by another node within
        ``remember_ms``. Whether any counter took it.
        """
        ...

    async def settle_once(self, hold: Hold, cost: int, remember_ms: int) -> int | None:
        """Note, for all nodes, the cost at which a hold is settled; the one noted before, if there is one. Whether the
        counters follow it already is not said: who noted it may have died before they did.
        """
        ...

    async def replace(self, hold: Hold, cost: int, remember_ms: int) -> bool:
        """Let the hold count as ``cost`` instead of what was taken, once, even when asked again. Whether this call
        ended it: of all calls for a hold one does.
        """
        ...


class Grant(NamedTuple):
    """What was taken: the verdict, the hold's text (``None`` where there is nothing to hold), units, time to spend."""

    verdict: Verdict
    hold: str | None
    units: int
    expires_in_s: float
    reason: str | None = None


class HoldTally:
    """Counts since the start of the process, in units of cost."""

    def __init__(self) -> None:
        self.leased = 0
        self.returned = 0
        self.reserved = 0
        self.settled = 0
        self.denied: dict[str, int] = {"lease": 0, "reservation": 0}
        """Asks, by kind, of which not one unit was granted."""
        self.not_leasable = 0
        """Asks for leases under limits that date each request, or a load that decides."""


class Holds:
    """Takes, returns and settles holds under the index in force.

    ``random_bytes`` names holds: nobody may guess or repeat an id.
    """

    def __init__(
        self, index: Callable[[], RuleIndex], anonymous: Anonymous, bounds: SubjectBounds, store: CounterStore,
        ended: HoldStore, clock: Clock, seals: Seals, random_bytes: Callable[[int], bytes],
        rights: RightsReader | None = None,
    ) -> None:  # fmt: skip
        self._rights = rights
        self._index = index
        self._anonymous = anonymous
        self._bounds = bounds
        self._store = store
        self._ended = ended
        self._clock = clock
        self._seals = seals
        self._random_bytes = random_bytes
        self.tally = HoldTally()
        self.usage: UsageTally | None = None
        """Where what is taken counts as usage."""

    async def lease(self, request: LeaseRequest) -> Grant | Refusal:
        """As many of the wanted units as there are to give, at least one unless that is denied.

        Raises ``UnknownNameError``, ``InvalidAddressError``, ``StoreUnavailableError``.
        """
        one = self._resolved(request, 1)
        if isinstance(one, Refusal):
            return one
        limits, unit_cost = one.bound.limits, one.cost
        reason = why_not_leasable(limits) if unit_cost else None
        if one.bound.gate is not None:
            reason = f"backend {one.bound.gate.backend}: whether a request may pass follows its load"
        if reason is not None:
            verdict, _ = await self._take(one, 0)
            self.tally.not_leasable += 1
            return Grant(verdict, None, 0, 0.0, reason)
        if not unit_cost:
            verdict, _ = await self._take(one, 0)
            free = Grant(verdict, None, request.units, request.ttl_s)
            return free if verdict.allowed else self._denied("lease", verdict)
        if not limits:
            return self._granted("lease", conclude(one, []), request.units, unit_cost, (), request.ttl_s)
        units = first_ask(request.units, unit_cost, limits)
        for attempt in range(1, MOST_ATTEMPTS + 1):
            verdict, clocks_us = await self._take(one, units * unit_cost)
            if verdict.allowed:
                return self._granted("lease", verdict, units, unit_cost, clocks_us, request.ttl_s)
            if units == 1:
                break
            last = attempt == MOST_ATTEMPTS - 1
            units = 1 if last else next_ask(units, unit_cost, limits, verdict.outcomes)
        return self._denied("lease", verdict)

    async def reserve(self, request: ReservationRequest) -> Grant | Refusal:
        """Take the estimated cost; raises as ``lease`` does."""
        check = self._resolved(request, request.cost)
        if isinstance(check, Refusal):
            return check
        if check.bound is NO_LIMITS:  # an exempt endpoint
            return Grant(conclude(check, []), None, request.cost, request.ttl_s)
        verdict, clocks_us = await self._take(check, check.cost)
        if not verdict.allowed:
            return self._denied("reservation", verdict)
        unit_cost = check.bound.unit_cost
        return self._granted("reservation", verdict, request.cost, unit_cost, clocks_us, request.ttl_s)

    async def give_back(self, text: str, unused: int) -> int:
        """Return what a lease did not spend; says how many units went back. Raises ``InvalidHoldError``."""
        hold = self._seals.unseal(text, "lease")
        unused = min(unused, hold.units)
        left_us = hold.until_us - self._clock.now_us()
        if not unused or left_us <= 0:
            return 0
        if not hold.keys:  # no limit gave it: it was usage alone
            if await self._ended.settle_once(hold, unused, left_us // 1_000) is not None:
                return 0
        elif not await self._ended.give_back(self._as_configured_now(hold), unused * hold.unit_cost, left_us // 1_000):
            return 0
        self.tally.returned += unused * hold.unit_cost
        self._correct_usage(hold, -unused, -unused * hold.unit_cost)
        return unused

    async def settle(self, text: str, cost: int) -> tuple[int, int, bool]:
        """Let a reservation count as its true cost: units returned, units charged, whether it was done before.

        Raises ``InvalidHoldError``, ``HoldEndedError``.
        """
        hold = self._seals.unseal(text, "reservation")
        left_us = hold.until_us - self._clock.now_us()
        if left_us <= 0:
            raise HoldEndedError("its time is over: the estimate stands")
        returned, charged = max(0, hold.units - cost), max(0, cost - hold.units)
        before = await self._ended.settle_once(hold, cost, left_us // 1_000)
        if before is not None and before != cost:
            raise HoldEndedError(f"it was settled at {before} before")
        ends = before is None
        if cost != hold.units and hold.keys:
            ends = await self._ended.replace(self._as_configured_now(hold), cost * hold.unit_cost, left_us // 1_000)
        if ends:
            self.tally.settled += cost * hold.unit_cost
            self._correct_usage(hold, 0, (cost - hold.units) * hold.unit_cost)
        return returned, charged, not ends

    def _resolved(self, asker: Asker, cost: int) -> ResolvedCheck | Refusal:
        request = CheckRequest(
            api_key=asker.api_key, client=asker.client, ip=asker.ip, method=asker.method, path=asker.path,
            endpoint=asker.endpoint, attributes=asker.attributes, cost=cost,
        )  # fmt: skip
        check = ResolvedCheck(request)
        refusal = resolve(check, self._index(), self._anonymous, self._bounds, self._clock.now_us() / 1_000_000)
        return check if refusal is None else refusal

    async def _take(self, check: PendingCheck, cost: int) -> tuple[Verdict, Sequence[int]]:
        """Ask the store for ``cost``: the verdict, and the store's clock when it decided on each key."""
        if not check.bound.limits:
            return conclude(check, []), ()
        answered: asyncio.Future[tuple[Sequence[Outcome], int]] = asyncio.get_running_loop().create_future()

        def done(answer: list[Outcome] | StoreUnavailableError, store_now_us: int) -> None:
            if answered.done():
                return
            if isinstance(answer, StoreUnavailableError):
                answered.set_exception(answer)
            else:
                answered.set_result((answer, store_now_us))

        question = CallbackCheck(check.keys, check.bound.params, cost, done)
        self._store.submit(question)
        told, store_now_us = await answered
        outcomes = list(told)
        if check.bound.rights and self._rights is not None:
            bound = check.bound
            outcomes = self._rights.understood(bound.rights, check.keys, bound.params, cost, outcomes)
        return conclude(check, outcomes), question.clocks_us or [store_now_us] * len(outcomes)

    def _as_configured_now(self, hold: Hold) -> Hold:
        """The hold by the limits in force: a store does nothing on strict ones by shares older than it knows."""
        index, now_s = self._index(), self._clock.now_us() / 1_000_000
        taken = zip(hold.keys, hold.params, strict=True)
        params = [params_in_force(index, key, now_s) or without_rights(then) for key, then in taken]
        return msgspec.structs.replace(hold, params=tuple(params))

    def _correct_usage(self, hold: Hold, requests: int, cost: int) -> None:
        """Take off the usage what came back, or add what was charged; not for a client that is gone meanwhile."""
        if self.usage is None:
            return
        index = self._index()
        endpoint = hold.endpoint if hold.endpoint in index.book.routes.by_name else None
        if hold.client and index.clients.get(hold.client) is None:
            return
        check = self._resolved(Asker(client=hold.client or None, endpoint=endpoint), 1)
        if isinstance(check, Refusal):
            return
        if check.principal is not None:
            check.principal = msgspec.structs.replace(check.principal, key_id=hold.key_id)
        self.usage.held(check, requests, cost)

    def _denied(self, kind: Kind, verdict: Verdict) -> Grant:
        self.tally.denied[kind] += 1
        if self.usage is not None and verdict.check.bound.unit_cost:
            self.usage.not_held(verdict)
        return Grant(verdict, None, 0, 0.0)

    def _granted(
        self, kind: Kind, verdict: Verdict, units: int, unit_cost: int, clocks_us: Sequence[int], ttl_s: float
    ) -> Grant:
        limits = verdict.check.bound.limits
        ttl_us = int(ttl_s * 1_000_000)
        if kind == "lease":
            ttl_us = spend_within_us(ttl_us, limits, verdict.outcomes)
            self.tally.leased += units * unit_cost
        else:
            self.tally.reserved += units * unit_cost
        if self.usage is not None and unit_cost:
            self.usage.held(verdict.check, units if kind == "lease" else 1, units * unit_cost)
        # A limit that would have denied in shadow was not charged.
        charged = [at for at, outcome in enumerate(verdict.outcomes) if outcome.allowed]
        keys = verdict.check.keys
        charged_us = tuple(clocks_us[at] for at in charged)
        bound, principal = verdict.check.bound, verdict.check.principal
        hold = Hold(
            kind, self._random_bytes(ID_BYTES), units, unit_cost,
            max(clocks_us, default=0), self._clock.now_us() + ttl_us,
            tuple(keys[at] for at in charged), tuple(bound.params[at] for at in charged),
            "" if principal is None else principal.client.client, "" if principal is None else principal.key_id,
            bound.endpoint, charged_us if len(set(charged_us)) > 1 else (),
        )  # fmt: skip
        return Grant(verdict, self._seals.seal(hold), units, ttl_us / 1_000_000)
