"""The decision: from a request to a verdict, by one call to the region's store or none at all.

Callbacks instead of coroutines: a task and a future a request would cost more than the decision itself. Limits are
resolved in two ways: nearly every request by a few lookups here, every other one by ``check_resolution.py``, which
knows all the rules.
"""

import struct
from collections.abc import Sequence
from typing import Protocol

from data_plane.config.index import Principal, RuleIndex
from data_plane.config.limit_set import LimitSet
from data_plane.config.load_gate import GatePass, retry_after_s
from data_plane.config.stream import Snapshot
from data_plane.decide.check_resolution import Anonymous, blocked, resolve
from data_plane.decide.decision_tally import Tally
from data_plane.decide.denial_cache import DenialCache
from data_plane.decide.denial_log import DenialLog
from data_plane.decide.pending_check import (
    ANONYMOUS_PLAN,
    PendingCheck,
    Refusal,
    Verdict,
    conclude,
    denied_at_a_price,
)
from data_plane.decide.store_fallback import StoreFallback
from data_plane.load.following import Gates
from data_plane.store.packing import encode_check, is_priced, outcomes_of
from data_plane.store.ports import Clock, CounterStore, RightsReader, StoreUnavailableError
from data_plane.store.subject_bounds import SubjectBounds
from data_plane.store.subjects import AddressBook, Named, is_ipv4


class Observer(Protocol):
    """Counts or samples decisions. It is called for every one: it must be quick and must not raise."""

    def passed(self, check: PendingCheck, *, degraded: bool) -> None:
        """Every limit allowed the check, and each counted ``check.cost``; ``degraded``: without the store."""
        ...

    def decided(self, check: PendingCheck, verdict: Verdict, now_us: int) -> None:
        """The check ended otherwise: denied, denied in shadow, or without limits."""
        ...


class Decider:
    """Decides checks under the index in force; ``applied`` swaps it whole.

    ``gates`` are the gates of protected backends; ``denial_log`` takes every denial. Without ``denial_cache`` the store
    decides every check.
    """

    def __init__(
        self,
        index: RuleIndex,
        store: CounterStore,
        clock: Clock,
        fallback: StoreFallback,
        tally: Tally,
        anonymous: Anonymous,
        denial_cache: DenialCache | None,
        bounds: SubjectBounds,
        gates: Gates,
        rights: RightsReader | None = None,
        observers: tuple[Observer, ...] = (),
        denial_log: DenialLog | None = None,
    ) -> None:
        self.index = index
        self._rights = rights
        self.revision = 0
        self.tally = tally
        self.observers = observers
        self._denial_log = denial_log
        self.now_us = clock.now_us
        self.submit = store.submit
        """Asks the store about a check for which ``make_ready`` returned true."""
        self.submit_all = store.submit_all
        self._fallback = fallback
        self._anonymous = anonymous
        self._denial_cache = denial_cache
        self._denials = {} if denial_cache is None else denial_cache.denials
        self._bounds = bounds
        self._addresses = AddressBook()
        self._gates = gates

    @property
    def _anonymous_set_key(self) -> str | None:
        """The limit-set key of requests without an API key; ``None``: refused, or left to ``resolve``."""
        return ANONYMOUS_PLAN if self._anonymous.missing_key and not self._bounds.coarse else None

    def applied(self, index: RuleIndex, snapshot: Snapshot) -> None:
        """Decide under this configuration from now on."""
        self.index, self.revision = index, snapshot.whole_revision

    def decide(self, check: PendingCheck) -> None:
        """Call ``check.decided`` once, now or when the store has answered.

        Raises ``UnknownNameError`` or ``InvalidAddressError`` at once where the request itself is wrong.
        """
        if self.make_ready(check):
            self.submit(check)

    def make_ready(self, check: PendingCheck) -> bool:
        """Find the client and the limits. True: the store must be asked; else ``check.decided`` was called.

        Raises as ``decide``.
        """
        request = check.request
        index = self.index
        check.revision = self.revision
        client = request.client
        principal = index.known.get(request.api_key) if client is None else index.named.get(client)
        asked_for, resolutions = request.endpoint, index.book.named_resolutions
        if asked_for is None:
            asked_for, resolutions = request.path, index.book.resolutions
        if principal is not None:
            limit_set_key = principal.limit_set_key if check.asked_us < principal.until_us else None
        else:  # a key that was not used yet, an unknown one, or none
            limit_set_key = self._anonymous_set_key if client is None and request.api_key is None else None
        if limit_set_key is None or asked_for is None:
            return self._make_ready_carefully(check)
        ip = request.ip
        named = None if ip is not None and is_ipv4(ip) else self._addresses[ip]
        limit_set = resolutions[named is not None and named.has_site][limit_set_key, request.method, asked_for]
        if not limit_set.key_parts:
            return self._make_ready_carefully(check)
        if index.blocks is not None:
            refusal = blocked(index.blocks, principal, limit_set.endpoint, request.ip, check.asked_us / 1_000_000)
            if refusal is not None:
                return self._refuse(check, refusal)
        check.principal = principal
        check.limit_set = limit_set
        if limit_set.client_key_rest is not None and principal is not None:
            check.keys = (principal.tag + limit_set.client_key_rest + principal.end,)
        else:
            check.keys = _keys(principal, limit_set, ip, named)
        cost = request.cost
        if cost == 1:
            check.cost = limit_set.unit_cost
            check.packed = limit_set.packed
        else:
            check.cost = cost = cost * limit_set.unit_cost
            check.packed = encode_check(cost, limit_set.params)
        if self._denials and limit_set.lasting and self._recalled(check):
            return False
        return limit_set.gate_pass is None or self._pass_gate(check, limit_set.gate_pass)

    def _make_ready_carefully(self, check: PendingCheck) -> bool:
        now_us = check.asked_us
        refusal = resolve(check, self.index, self._anonymous, self._bounds, now_us / 1_000_000)
        if refusal is not None:
            return self._refuse(check, refusal)
        limit_set = check.limit_set
        try:
            check.packed = encode_check(check.cost, limit_set.params)
        except struct.error:  # more limits than one call can carry
            self.unanswered(check, StoreUnavailableError("script_error"), now_us)
            return False
        if self._denials and limit_set.lasting and self._recalled(check):
            return False
        if limit_set.gate_pass is not None and not self._pass_gate(check, limit_set.gate_pass):
            return False
        if not limit_set.limits:
            self._finish(check, conclude(check, []), now_us)
            return False
        return True

    def _pass_gate(self, check: PendingCheck, gate_pass: GatePass) -> bool:
        """Ask the backend's gate. False: the check was shed and answered. True: its limits have their prices."""
        gate = gate_pass.gate or self._gates.open(gate_pass)
        principal = check.principal
        client = self._addresses[check.request.ip].tag if principal is None else principal.json
        if not gate.admits(client, check.cost):
            if self._fallback.denies_unasked(gate_pass, check.limit_set.limits, check.keys, check.cost, check.asked_us):
                gate.own += check.cost
            wait_s = retry_after_s(gate_pass, client, check.asked_us)
            verdict = Verdict(check, False, [], None, (gate_pass.policy,), (), False, True, wait_s)
            self._finish(check, verdict, check.asked_us)
            return False
        packed = gate_pass.packed(gate, check.cost)
        if packed is not None:
            check.packed = packed
        return True

    def _refuse(self, check: PendingCheck, refusal: Refusal) -> bool:
        self.tally.refused(refusal)
        if self._denial_log is not None:
            self._denial_log.refused(check, refusal)
        check.decided(refusal, check.asked_us)
        return False

    def answered(self, check: PendingCheck, figures: Sequence[int], at: int, now_us: int, *, degraded: bool) -> None:
        """The store has decided; or the store fallback, which knows neither rights nor prices, if ``degraded``."""
        outcomes = outcomes_of(figures, at, len(check.keys))
        if check.limit_set.rights and self._rights is not None and not degraded:
            outcomes = self._rights.understood(check.limit_set.rights, check.keys, check.params, check.cost, outcomes)
        verdict = conclude(check, outcomes, degraded=degraded)
        gate = check.limit_set.gate_pass
        if not verdict.allowed and gate is not None:
            gate.denied(outcomes, check.cost)
        if not verdict.allowed and not degraded:
            if gate is not None and is_priced(check.packed):
                verdict = denied_at_a_price(verdict, gate, check.cost)  # not cached: the price may fall at any moment
            elif self._denial_cache is not None and check.cost:
                self._denial_cache.remember(verdict, check.keys, check.asked_us, now_us)
        self._finish(check, verdict, now_us)

    def unanswered(self, check: PendingCheck, error: StoreUnavailableError, _now_us: int) -> None:
        """The store gave no answer: each limit follows its own ``on_store_failure``."""
        self.tally.store_unavailable(error.reason)
        self._fallback.decide(check)

    def _recalled(self, check: PendingCheck) -> bool:
        """Whether the denial cache denied the check."""
        if self._denial_cache is None or not check.cost:
            return False
        outcomes = self._denial_cache.recall(check.limit_set, check.keys, check.cost, check.asked_us)
        if outcomes is None:
            return False
        self.tally.remembered += 1
        if check.limit_set.gate_pass is not None:
            check.limit_set.gate_pass.denied_unasked(outcomes, check.cost)
        self._finish(check, conclude(check, outcomes), check.asked_us)
        return True

    def _finish(self, check: PendingCheck, verdict: Verdict, now_us: int) -> None:
        self.tally.decided(verdict, now_us - check.asked_us)
        for observer in self.observers:
            observer.decided(check, verdict, now_us)
        if self._denial_log is not None:
            self._denial_log.concluded(check, verdict, now_us)
        check.decided(verdict, now_us)


def _keys(principal: Principal | None, limit_set: LimitSet, ip: str | None, named: Named | None) -> list[bytes]:
    """The keys of limits with ``key_parts``; ``named`` is the address unless it is IPv4."""
    address, site = (f"{{i:{ip}}}".encode(), b"") if named is None else (named.tag, named.site_tag)
    if principal is None:
        begins = (address, address, site, b"")
        return [begins[owner] + rest for owner, rest in limit_set.key_parts]
    begins = (principal.tag, address, site, b"")
    if principal.end:
        ends = (principal.end, b"", b"", b"")
        return [begins[owner] + rest + ends[owner] for owner, rest in limit_set.key_parts]
    return [begins[owner] + rest for owner, rest in limit_set.key_parts]
