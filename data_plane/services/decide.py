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
from data_plane.services.last_resort import LastResort
from data_plane.services.ports import Clock, CounterCheck, CounterStore, StoreUnavailableError
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
        started_us = self._clock.now_us()
        prepared = prepare(self.index, request, self._anonymous, self._bounds, started_us / 1_000_000)
        tally = self._tally
        if not isinstance(prepared, Prepared):
            tally.refused(prepared)
            done(prepared, started_us)
            return
        if not prepared.bound.limits:
            verdict = conclude(prepared, ())
            tally.decided(verdict, 0)
            done(verdict, started_us)
            return

        keys = prepared.keys()
        memory = self._memory if prepared.bound.lasting and prepared.cost else None
        if memory is not None:
            remembered = memory.recall(prepared, keys, started_us)
            if remembered is not None:
                tally.remembered += 1
                tally.decided(remembered, 0)
                done(remembered, started_us)
                return

        def answered(answer: Sequence[Outcome] | StoreUnavailableError, _store_now_us: int) -> None:
            now_us = self._clock.now_us()
            if isinstance(answer, StoreUnavailableError):
                tally.store_unavailable(answer.reason)
                verdict = conclude(prepared, self._last_resort.outcomes(prepared, keys, now_us), degraded=True)
            else:
                verdict = conclude(prepared, answer)
                if memory is not None and not verdict.allowed:
                    memory.remember(verdict, keys, started_us)
            tally.decided(verdict, now_us - started_us)
            done(verdict, now_us)

        self._store.submit(CounterCheck(keys, prepared.bound.params, prepared.cost, answered))
