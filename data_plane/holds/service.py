"""Leases and reservations: take units now, give back or charge the difference later, each at most once."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from data_plane.config.index import RuleIndex
from data_plane.config.limit_set import NO_LIMITS
from data_plane.config.limits_of_keys import params_in_force
from data_plane.config.routes import UNMATCHED
from data_plane.decide.check_resolution import Anonymous, resolve
from data_plane.decide.pending_check import PendingCheck, Refusal, ResolvedCheck, Verdict, conclude
from data_plane.holds.redis_holds import RedisHoldStore
from data_plane.holds.signatures import HoldSigner
from data_plane.holds.tokens import (
    Hold,
    Kind,
    first_attempt,
    next_attempt,
    spend_within_us,
    why_not_leasable,
)
from data_plane.store.asking import ask
from data_plane.store.packing import without_rights
from data_plane.store.ports import Clock, CounterStore, RightsReader
from data_plane.store.subject_bounds import SubjectBounds
from data_plane.store.subjects import limit_of_key
from data_plane.usage.tally import UsageTally
from tidegate.contract.decision import CheckRequest
from tidegate.contract.holds import Asker, LeaseRequest, ReservationRequest
from tidegate.contract.limits import nominal_window_us

ID_BYTES = 12
MAX_ATTEMPTS = 4


class HoldEndedError(Exception):
    """The hold has expired, or was settled at another cost before."""


class Grant(NamedTuple):
    """The verdict, the hold's text (``None`` without a hold), its units, and the time to spend them."""

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
        """Requests denied as a whole, by kind."""
        self.not_leasable = 0
        """Requests for leases under limits that date each request, or a backend's load."""


class Holds:
    """Takes, returns and settles holds under the index in force.

    ``random_bytes`` makes ids of holds that nobody can guess.
    """

    def __init__(
        self, index: Callable[[], RuleIndex], anonymous: Anonymous, bounds: SubjectBounds, store: CounterStore,
        ended: RedisHoldStore, clock: Clock, signer: HoldSigner, random_bytes: Callable[[int], bytes],
        rights: RightsReader, usage: UsageTally,
    ) -> None:  # fmt: skip
        self._rights = rights
        self._index = index
        self._anonymous = anonymous
        self._bounds = bounds
        self._store = store
        self._ended = ended
        self._clock = clock
        self._signer = signer
        self._random_bytes = random_bytes
        self.tally = HoldTally()
        self._usage = usage

    async def lease(self, request: LeaseRequest) -> Grant | Refusal:
        """Grant as many of the wanted units as possible; denied if not even one is.

        Raises ``UnknownNameError``, ``InvalidAddressError``, ``StoreUnavailableError``.
        """
        check = self._resolve(request, 1)
        if isinstance(check, Refusal):
            return check
        limits, unit_cost = check.limit_set.limits, check.cost
        reason = why_not_leasable(limits) if unit_cost else None
        if check.limit_set.gate_pass is not None:
            reason = f"backend {check.limit_set.gate_pass.backend}: whether a request may pass follows its load"
        if reason is not None:
            verdict, _ = await self._take(check, 0)
            self.tally.not_leasable += 1
            return Grant(verdict, None, 0, 0.0, reason)
        if not unit_cost:
            verdict, _ = await self._take(check, 0)
            free = Grant(verdict, None, request.units, request.ttl_s)
            return free if verdict.allowed else self._denied("lease", verdict)
        if not limits:
            return self._granted("lease", conclude(check, []), request.units, unit_cost, (), request.ttl_s)
        units = first_attempt(request.units, unit_cost, limits)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            verdict, clocks_us = await self._take(check, units * unit_cost)
            if verdict.allowed:
                return self._granted("lease", verdict, units, unit_cost, clocks_us, request.ttl_s)
            if units == 1:
                break
            last = attempt == MAX_ATTEMPTS - 1
            units = 1 if last else next_attempt(units, unit_cost, limits, verdict.outcomes)
        return self._denied("lease", verdict)

    async def reserve(self, request: ReservationRequest) -> Grant | Refusal:
        """Take the estimated cost. Raises as ``lease``."""
        check = self._resolve(request, request.cost)
        if isinstance(check, Refusal):
            return check
        if check.limit_set is NO_LIMITS:  # an exempt endpoint
            return Grant(conclude(check, []), None, request.cost, request.ttl_s)
        verdict, clocks_us = await self._take(check, check.cost)
        if not verdict.allowed:
            return self._denied("reservation", verdict)
        unit_cost = check.limit_set.unit_cost
        return self._granted("reservation", verdict, request.cost, unit_cost, clocks_us, request.ttl_s)

    def lease_of(self, text: str) -> Hold:
        """A lease as it was handed out. Raises ``InvalidHoldError``."""
        return self._signer.verify(text, "lease")

    async def give_back(self, hold: Hold, unused: int) -> int:
        """Return unused units of a lease. Returns how many were taken back."""
        unused = min(unused, hold.units)
        left_us = hold.until_us - self._clock.now_us()
        if not unused or left_us <= 0:
            return 0
        if not hold.keys:  # no limit gave the units: they are usage alone
            if await self._ended.settle_once(hold, unused, left_us // 1_000) is not None:
                return 0
        elif not await self._ended.give_back(self._as_configured_now(hold), unused * hold.unit_cost, left_us // 1_000):
            return 0
        self.tally.returned += unused * hold.unit_cost
        self._correct_usage(hold, -unused, -unused * hold.unit_cost)
        return unused

    async def settle(self, text: str, cost: int) -> tuple[int, int, bool]:
        """Settle a reservation at its true cost. Returns units returned, units charged, and whether it was done before.

        Raises ``InvalidHoldError``, ``HoldEndedError``.
        """
        hold = self._signer.verify(text, "reservation")
        left_us = hold.until_us - self._clock.now_us()
        if left_us <= 0:
            raise HoldEndedError("its time is over: the estimate stands")
        returned, charged = max(0, hold.units - cost), max(0, cost - hold.units)
        before = await self._ended.settle_once(hold, cost, left_us // 1_000)
        if before is not None and before != cost:
            raise HoldEndedError(f"it was settled at {before} before")
        ends = before is None
        if cost != hold.units and hold.keys:
            replaced = await self._ended.replace(
                self._as_configured_now(hold), cost * hold.unit_cost, left_us // 1_000, logs_over=self._logs_over(hold)
            )
            ends = ends if replaced is None else replaced
        if ends:
            self.tally.settled += cost * hold.unit_cost
            self._correct_usage(hold, 0, (cost - hold.units) * hold.unit_cost)
        return returned, charged, not ends

    def _resolve(self, asker: Asker, cost: int) -> ResolvedCheck | Refusal:
        request = CheckRequest(
            api_key=asker.api_key, client=asker.client, ip=asker.ip, method=asker.method, path=asker.path,
            endpoint=asker.endpoint, attributes=asker.attributes, cost=cost,
        )  # fmt: skip
        check = ResolvedCheck(request)
        refusal = resolve(check, self._index(), self._anonymous, self._bounds, self._clock.now_us() / 1_000_000)
        return check if refusal is None else refusal

    async def _take(self, check: PendingCheck, cost: int) -> tuple[Verdict, Sequence[int]]:
        """Take ``cost`` from the store. Returns the verdict, and the store's clock at the decision on each key."""
        if not check.limit_set.limits:
            return conclude(check, []), ()
        outcomes, clocks_us = await ask(self._store, check.keys, check.limit_set.params, cost)
        if check.limit_set.rights:
            limit_set = check.limit_set
            outcomes = self._rights.understood(limit_set.rights, check.keys, limit_set.params, cost, outcomes)
        return conclude(check, outcomes), clocks_us

    def _as_configured_now(self, hold: Hold) -> Hold:
        """The hold with the limits in force: the store refuses strict limits with shares older than its marker's."""
        index, now_s = self._index(), self._clock.now_us() / 1_000_000
        params = [
            params_in_force(index, key, now_s) or without_rights(params_when_taken)
            for key, params_when_taken in zip(hold.keys, hold.params, strict=True)
        ]
        return msgspec.structs.replace(hold, params=tuple(params))

    def _logs_over(self, hold: Hold) -> bool:
        """Whether all entries of logs that the hold took have left by now, and count no longer."""
        by_id, now_us = self._index().book.by_id, self._clock.now_us()
        rules = ((place, by_id.get(limit_of_key(key))) for place, key in enumerate(hold.keys))
        logs = [(place, rule) for place, rule in rules if rule is not None and rule.algorithm == "sliding_log"]
        return all(hold.charged_at_us(place) + nominal_window_us(rule) <= now_us for place, rule in logs)

    def _correct_usage(self, hold: Hold, requests: int, cost: int) -> None:
        """Correct the usage by returned or charged units, unless the client has been removed meanwhile."""
        index, now_s = self._index(), self._clock.now_us() / 1_000_000
        principal = index.clients.get(hold.client) if hold.client else None
        if hold.client and principal is None:
            return
        endpoint = index.book.routes.by_name.get(hold.endpoint, UNMATCHED)
        check, client = ResolvedCheck(CheckRequest(), principal), None
        if principal is not None:
            check.principal, client = msgspec.structs.replace(principal, key_id=hold.key_id), principal.client
        check.limit_set = index.book.limit_set(check.plan, client, endpoint, endpoint.method, now_s, sites=False)
        self._usage.held(check, requests, cost)

    def _denied(self, kind: Kind, verdict: Verdict) -> Grant:
        self.tally.denied[kind] += 1
        if verdict.check.limit_set.unit_cost:
            self._usage.not_held(verdict)
        return Grant(verdict, None, 0, 0.0)

    def _granted(
        self, kind: Kind, verdict: Verdict, units: int, unit_cost: int, clocks_us: Sequence[int], ttl_s: float
    ) -> Grant:
        limits = verdict.check.limit_set.limits
        ttl_us = int(ttl_s * 1_000_000)
        if kind == "lease":
            ttl_us = spend_within_us(ttl_us, limits, verdict.outcomes)
            self.tally.leased += units * unit_cost
        else:
            self.tally.reserved += units * unit_cost
        if unit_cost:
            self._usage.held(verdict.check, units if kind == "lease" else 1, units * unit_cost)
        # A shadow limit that would have denied was not charged.
        charged = [place for place, outcome in enumerate(verdict.outcomes) if outcome.allowed]
        keys = verdict.check.keys
        charged_us = tuple(clocks_us[place] for place in charged)
        limit_set, principal = verdict.check.limit_set, verdict.check.principal
        hold = Hold(
            kind, self._random_bytes(ID_BYTES), units, unit_cost,
            max(clocks_us, default=0), self._clock.now_us() + ttl_us,
            tuple(keys[place] for place in charged), tuple(limit_set.params[place] for place in charged),
            "" if principal is None else principal.client.client, "" if principal is None else principal.key_id,
            limit_set.endpoint, charged_us if len(set(charged_us)) > 1 else (),
        )  # fmt: skip
        return Grant(verdict, self._signer.sign(hold), units, ttl_us / 1_000_000)
