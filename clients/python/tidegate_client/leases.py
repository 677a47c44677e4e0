"""What is held here: allotments that nodes granted, and denials that still stand. Pure: time is an argument.

A lease is spent only before its time is over and never beyond its units, so what this process lets through was counted
before it was let through. What is left goes back in time; what expires is lost, not reused.
"""

from math import ceil
from typing import NamedTuple

import msgspec

from tidegate_client.messages import Check, Decision

RENEW_BELOW = 0.3
"""The part of a lease that is left when the next one is asked for."""
SETTLE_BEFORE = 0.15
"""The part of a lease's time in which it is no longer spent but returned."""
SMOOTHING = 0.5
MOST_UNITS = 10**12
LONGEST_CHECK = 1_000
"""Characters of a check that is kept here: what end clients send must not fill this process."""


def is_short(check: Check) -> bool:
    """Whether the check may hold a lease, and its denial be remembered."""
    *texts, attributes = check
    return sum(len(text) for text in (*texts, *(text for pair in attributes for text in pair)) if text) <= LONGEST_CHECK


def is_whole(cost: int) -> bool:
    """Whether a cost may be decided here: for the rest a node is asked, which looks (0) or refuses it.

    A lease would grow by what is below 0, and what is left of it after 0.5 no node takes back.
    """
    return isinstance(cost, int) and cost > 0


class Ending(NamedTuple):
    """A lease to return, with what was not spent, to the node's region it came from."""

    origin: str
    token: str
    unused: int


class HeldAnswer:
    """What a node said when it was asked at ``asked_at``, to be said again later."""

    __slots__ = ("_asked_at", "_later", "_passed_s", "decision")

    def __init__(self, decision: Decision, asked_at: float) -> None:
        self.decision = decision
        self._asked_at = asked_at
        self._passed_s = 0.0
        self._later = decision

    def at(self, now: float) -> Decision:
        """The decision as it reads now: what has passed is taken off its times, by tenths of a second."""
        passed_s = int((now - self._asked_at) * 10) / 10
        if passed_s != self._passed_s:
            self._passed_s = passed_s
            reset_after_s, retry_after_s = (
                None if time_s is None else max(0.0, time_s - passed_s)
                for time_s in (self.decision.reset_after_s, self.decision.retry_after_s)
            )
            self._later = msgspec.structs.replace(
                self.decision, reset_after_s=reset_after_s, retry_after_s=retry_after_s
            )
        return self._later


class Lease:
    """Units from one node until a moment; ``answer`` is what each of them is answered with."""

    __slots__ = ("answer", "granted", "left", "low", "origin", "spend_until", "token", "until")

    def __init__(
        self, origin: str, token: str | None, granted: int, asked_at: float, lasts_s: float, decision: Decision
    ) -> None:
        self.origin = origin
        self.token = token
        self.granted = granted
        self.left = granted
        self.low = int(granted * RENEW_BELOW)
        self.until = asked_at + lasts_s
        self.spend_until = self.until - lasts_s * SETTLE_BEFORE
        self.answer = HeldAnswer(decision, asked_at)


class Account:
    """One check's lease, the demand for it, and its denial if there is one."""

    __slots__ = ("asking", "denial", "denied_cost", "denied_until", "lease", "not_before", "rate", "since", "wanted")

    def __init__(self, now: float) -> None:
        self.lease: Lease | None = None
        self.asking = False
        self.wanted = 0
        self.since = now
        self.rate = 0.0
        self.denial: HeldAnswer | None = None
        self.denied_cost = 0
        self.denied_until = 0.0
        self.not_before = 0.0

    def measure(self, now: float) -> float:
        """Units wanted a second, smoothed."""
        passed = now - self.since
        if passed >= 0.05:
            seen = self.wanted / passed
            self.rate = seen if not self.rate else self.rate + SMOOTHING * (seen - self.rate)
            self.wanted, self.since = 0, now
        return self.rate


class Repeated:
    """Requests of one check that were denied from memory, and the units that they asked for together."""

    __slots__ = ("check", "cost", "denial", "requests")

    def __init__(self, check: Check, denial: Decision) -> None:
        self.check = check
        self.denial = denial
        self.requests = 0
        self.cost = 0

    def members(self) -> dict[str, object]:
        """As a node reads it (``POST /v1/denials``)."""
        members = {**self.check.members(), "requests": self.requests, "cost": min(self.cost, MOST_UNITS)}
        told = {"policy": self.denial.policy, "cause": self.denial.cause}
        return {**members, **{name: value for name, value in told.items() if value is not None}}


class LeaseBook:
    """The accounts of one process. Not thread-safe: the caller holds a lock where threads share it."""

    def __init__(self, *, lease_s: float, after_per_s: float, max_units: int, remember_s: float, most: int) -> None:
        self._lease_s = lease_s
        self._after_per_s = after_per_s
        self._max_units = max_units
        self._remember_s = remember_s
        self._most = most
        self.accounts: dict[Check, Account] = {}
        self.low: list[Check] = []
        """Whose lease runs low: to be renewed by whoever sees it here (their accounts are marked as asking)."""
        self._repeated: dict[Check, Repeated] = {}
        self._pushed_out: list[Lease] = []
        """Of accounts that made room: returned with the next that are due."""

    def take(self, check: Check, cost: int, now: float) -> Decision | None:
        """Decide here if that is possible: spend a lease, or repeat a denial; ``None``: ask a node."""
        account = self.accounts.get(check)
        if account is None:
            return None
        account.wanted += cost
        lease = account.lease
        if lease is not None and lease.left >= cost and now < lease.spend_until:
            lease.left -= cost
            if lease.left < lease.low and not account.asking:
                account.asking = True
                self.low.append(check)
            return lease.answer.at(now)
        if now < account.denied_until and cost >= account.denied_cost > 0 and account.denial is not None:
            denial = account.denial.at(now)
            self._repeat(check, cost, denial)
            return denial
        return None

    def _repeat(self, check: Check, cost: int, denial: Decision) -> None:
        repeated = self._repeated.get(check)
        if repeated is None:
            if len(self._repeated) >= self._most:
                return
            repeated = self._repeated[check] = Repeated(check, denial)
        repeated.requests += 1
        repeated.cost += cost

    @property
    def has_repeated(self) -> bool:
        """Whether something was denied here that no node knows of."""
        return bool(self._repeated)

    def repeated(self) -> list[Repeated]:
        """What was denied here since the last time, by check: for a node to count."""
        repeated, self._repeated = self._repeated, {}
        return list(repeated.values())

    def wants_lease(self, account: Account, now: float) -> bool:
        """Whether a check that could not be decided here is asked for often enough to hold a lease."""
        return not account.asking and now >= account.not_before and account.measure(now) >= self._after_per_s

    def note(self, check: Check, cost: int, now: float) -> Account:
        """The check's account, made when it is seen for the first time; ``cost`` is wanted of it."""
        account = self.accounts.get(check)
        if account is None:
            if len(self.accounts) >= self._most:
                self._forget_idle(now)
            account = self.accounts[check] = Account(now)
            account.wanted = cost
        return account

    def units_to_ask(self, account: Account, at_least: int, now: float) -> int:
        """As much as will be wanted in a lease's time; half of what there is left when that is known to be less."""
        units = max(at_least, ceil(account.measure(now) * self._lease_s))
        account.asking = True
        lease = account.lease
        if lease is not None and (remaining := lease.answer.decision.remaining) is not None:
            units = min(units, max(at_least, remaining // 2))
        return max(1, min(units, self._max_units))

    def granted(self, account: Account, lease: Lease) -> list[Ending]:
        """Put a lease in force; what is left of the one before is to be returned."""
        before, account.lease = account.lease, lease
        account.denied_until = 0.0
        return [] if before is None else _endings(before)

    def denied(self, account: Account, decision: Decision, cost: int, asked_at: float) -> None:
        """Remember a denial from when it was asked for, for as long as it is certain."""
        if not self._remember_s or decision.status != 429:
            return
        wait_s = self._remember_s if decision.retry_after_s is None else decision.retry_after_s
        account.denial = HeldAnswer(msgspec.structs.replace(decision, source="memory"), asked_at)
        account.denied_cost = max(1, cost)
        account.denied_until = asked_at + min(wait_s, self._remember_s)

    def due(self, now: float) -> list[Ending]:
        """Leases whose time ends: they are no longer spent, and what is left is to be returned."""
        ended, self._pushed_out = self._pushed_out, []
        for account in self.accounts.values():
            lease = account.lease
            if lease is not None and now >= lease.spend_until:
                account.lease = None
                ended.append(lease)
        return [ending for lease in ended if now < lease.until for ending in _endings(lease)]

    def close(self, now: float) -> list[Ending]:
        """Every lease that can still be returned; nothing is held afterwards."""
        held = [account.lease for account in self.accounts.values() if account.lease is not None] + self._pushed_out
        self.accounts.clear()
        self._pushed_out = []
        return [ending for lease in held if now < lease.until for ending in _endings(lease)]

    def forget_asking(self) -> None:
        """Nobody asks for leases any more: let whoever wants one begin."""
        self.low = []
        for account in self.accounts.values():
            account.asking = False

    def _forget_idle(self, now: float) -> None:
        """Make room: accounts that hold nothing go first, then all that is not being asked for."""
        idle = [
            check
            for check, account in self.accounts.items()
            if account.lease is None and not account.asking and now >= account.denied_until
        ]
        for check in idle or [check for check, account in self.accounts.items() if not account.asking]:
            lease = self.accounts.pop(check).lease
            if lease is not None:
                self._pushed_out.append(lease)


def _endings(lease: Lease) -> list[Ending]:
    unused, lease.left = lease.left, 0
    return [Ending(lease.origin, lease.token, unused)] if unused and lease.token is not None else []
