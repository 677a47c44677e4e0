"""The decision: from a request to a verdict, by one call to the region's store or none at all.

Callbacks instead of coroutines: a task and a future a request would cost more than the decision itself.
"""

from collections.abc import Callable, Sequence

from contract.decision import CheckRequest
from data_plane.domain.check import Anonymous, Prepared, Refusal, Verdict, conclude, prepare
from data_plane.domain.denials import DenialMemory
from data_plane.domain.index import RuleIndex
from data_plane.domain.outcome import Outcome
from data_plane.domain.subject_bounds import SubjectBounds
from data_plane.domain.wire import encode_check, outcomes_of
from data_plane.services.last_resort import LastResort
from data_plane.services.ports import Clock, CounterStore, StoreUnavailableError
from data_plane.services.tally import Tally

Done = Callable[[Verdict | Refusal, int], None]
"""Called with the answer and the node's clock at that moment, in microseconds."""


class Decider:
    """Decides checks under the index in force; ``apply`` swaps it whole."""

    def __init__(
        self,
        index: RuleIndex,
        store: CounterStore,
        clock: Clock,
        last_resort: LastResort,
        tally: Tally,
        anonymous: Anonymous,
        memory: DenialMemory | None,
        bounds: SubjectBounds,
    ) -> None:
        self.index = index
        self.revision = 0
        self._store = store
        self._clock = clock
        self._last_resort = last_resort
        self._tally = tally
        self._anonymous = anonymous
        self._memory = memory
        self._bounds = bounds

    def apply(self, index: RuleIndex, revision: int) -> None:
        """Put a revision in force: every decision from now on is made under it."""
        self.index, self.revision = index, revision

    def decide(self, request: CheckRequest, done: Done) -> None:
        """Call ``done`` once, now or when the store has answered; it must not raise.

        Raises ``UnknownNameError`` or ``InvalidAddressError`` at once where the request itself is wrong.
        """
        now_us = self._clock.now_us()
        prepared = prepare(self.index, request, self._anonymous, self._bounds, now_us / 1_000_000)
        if isinstance(prepared, Refusal):
            self._tally.refused(prepared)
            done(prepared, now_us)
            return
        verdict: Verdict | None
        if not prepared.bound.limits:
            verdict = conclude(prepared, [])
        else:
            keys = prepared.keys()
            verdict = self._recalled(prepared, keys, now_us) if prepared.bound.lasting else None
            if verdict is None:
                self._store.submit(_Inquiry(self, prepared, keys, now_us, done))
                return
        self._tally.decided(verdict, 0)
        done(verdict, now_us)

    def answered(self, inquiry: "_Inquiry", outcomes: list[Outcome]) -> None:
        """The store has decided."""
        now_us = self._clock.now_us()
        prepared = inquiry.prepared
        verdict = conclude(prepared, outcomes)
        if not verdict.allowed and self._memory is not None and prepared.cost:
            self._memory.remember(verdict, inquiry.keys, inquiry.asked_us)
        self._tally.decided(verdict, now_us - inquiry.asked_us)
        inquiry.decided(verdict, now_us)

    def unanswered(self, inquiry: "_Inquiry", error: StoreUnavailableError) -> None:
        """The store has not: each limit by its own policy."""
        now_us = self._clock.now_us()
        self._tally.store_unavailable(error.reason)
        outcomes = self._last_resort.outcomes(inquiry.prepared, inquiry.keys, now_us)
        verdict = conclude(inquiry.prepared, outcomes, degraded=True)
        self._tally.decided(verdict, now_us - inquiry.asked_us)
        inquiry.decided(verdict, now_us)

    def _recalled(self, prepared: Prepared, keys: Sequence[bytes], now_us: int) -> Verdict | None:
        """The denial that still holds, if there is one."""
        if not self._memory or not prepared.cost:
            return None
        verdict = self._memory.recall(prepared, keys, now_us)
        if verdict is not None:
            self._tally.remembered += 1
        return verdict


class _Inquiry:
    """A check on its way to the store and back: the port's ``CounterCheck``."""

    __slots__ = ("_decider", "asked_us", "cost", "decided", "keys", "packed", "params", "prepared")

    def __init__(
        self, decider: Decider, prepared: Prepared, keys: Sequence[bytes], asked_us: int, decided: Done
    ) -> None:
        self._decider = decider
        self.prepared = prepared
        self.keys = keys
        self.params: Sequence[bytes] = prepared.bound.params
        self.cost = prepared.cost
        self.packed = encode_check(self.cost, self.params)
        self.asked_us = asked_us
        self.decided = decided

    def done(self, figures: Sequence[int], at: int, _now_us: int) -> None:
        """The store has decided."""
        self._decider.answered(self, outcomes_of(figures, at, len(self.keys)))

    def failed(self, error: StoreUnavailableError, _now_us: int) -> None:
        """The store has not."""
        self._decider.unanswered(self, error)
