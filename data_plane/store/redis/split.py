"""A decision whose limits live in several slots of a Cluster: each group decides for itself, then all or nothing.

No script sees keys of two slots, so the groups decide at the same time. What a group consumed is given back when
another denied or did not answer. Until then other checks may be denied in error; none is admitted in error.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import msgspec

from data_plane.store.packing import SHADOW, Outcome, figures_of
from data_plane.store.ports import CallbackCheck, CounterCheck, StoreUnavailableError
from data_plane.store.redis.calls import Answers

Answer = Sequence[Outcome] | StoreUnavailableError


class GiveBack(Protocol):
    """Returns what a check consumed at ``now_us`` of the store's clock."""

    def __call__(self, check: CounterCheck, now_us: int) -> None:
        """Start giving back; returns at once."""
        ...


class Split:
    """One such decision under way."""

    def __init__(
        self,
        whole: CounterCheck,
        groups: list[list[int]],
        *,
        submit: Callable[[CounterCheck], None],
        give_back: GiveBack,
        answers: Answers,
    ) -> None:
        self._whole = whole
        self._groups = groups
        self._give_back = give_back
        self._answers = answers
        self._now_us = [0] * len(groups)
        self._answer: list[Answer | None] = [None] * len(groups)
        self._open = len(groups)
        self._parts = [
            CallbackCheck(
                [whole.keys[i] for i in members],
                [whole.params[i] for i in members],
                whole.cost,
                partial(self._on_part, number),
            )
            for number, members in enumerate(groups)
        ]
        for part in self._parts:
            submit(part)

    def _on_part(self, number: int, answer: Answer, now_us: int) -> None:
        self._answer[number] = answer
        self._now_us[number] = now_us
        self._open -= 1
        if not self._open:
            self._finish()

    def _finish(self) -> None:
        error = next((answer for answer in self._answer if isinstance(answer, StoreUnavailableError)), None)
        passed = [self._passed(number) for number in range(len(self._parts))]
        if error is None and all(passed):
            self._tell_clocks()
            self._answers.give([self._whole], figures_of(max(self._now_us), self._joined()))
            return
        cost = self._whole.cost
        for number in range(len(self._parts)):
            took = consumed(self._parts[number], self._outcomes(number)) if passed[number] else None
            if took is not None:
                self._give_back(took, self._now_us[number])
                self._answer[number] = [_before(outcome, cost) for outcome in self._outcomes(number)]
        if error is None:
            self._answers.give([self._whole], figures_of(max(self._now_us), self._joined()))
        else:
            self._answers.pass_on(self._whole, error)

    def _tell_clocks(self) -> None:
        """Who gives back later has to say when each group was consumed, by the clock of its own server."""
        if isinstance(self._whole, CallbackCheck):
            placed = {place: self._now_us[number] for number, members in enumerate(self._groups) for place in members}
            self._whole.clocks_us = [placed[place] for place in range(len(placed))]

    def _passed(self, number: int) -> bool:
        answer = self._answer[number]
        if answer is None or isinstance(answer, StoreUnavailableError):
            return False
        params = self._parts[number].params
        return all(outcome.allowed or param[0] & SHADOW for outcome, param in zip(answer, params, strict=True))

    def _outcomes(self, number: int) -> Sequence[Outcome]:
        answer = self._answer[number]
        return () if answer is None or isinstance(answer, StoreUnavailableError) else answer

    def _joined(self) -> list[Outcome]:
        """The groups' outcomes in the order of the whole check's keys."""
        placed = {
            place: outcome
            for number, members in enumerate(self._groups)
            for place, outcome in zip(members, self._outcomes(number), strict=True)
        }
        return [placed[place] for place in range(len(placed))]


def consumed(check: CounterCheck, outcomes: Sequence[Outcome]) -> CounterCheck | None:
    """What a check took that had these outcomes: nothing of shadow limits that denied, ``None`` where it was denied."""
    params = check.params
    if not check.cost or not all(
        outcome.allowed or param[0] & SHADOW for outcome, param in zip(outcomes, params, strict=True)
    ):
        return None
    took = [place for place, outcome in enumerate(outcomes) if outcome.allowed]
    return CallbackCheck([check.keys[at] for at in took], [params[at] for at in took], check.cost, _ignored)


def _ignored(_answer: Answer, _now_us: int) -> None:
    """What is given back is not answered by the store."""


def _before(outcome: Outcome, cost: int) -> Outcome:
    """A limit as it stood before it was consumed. A shadow limit that would have denied consumed nothing."""
    if not outcome.allowed:
        return outcome
    return msgspec.structs.replace(outcome, remaining=outcome.remaining + cost, delay_us=0)
