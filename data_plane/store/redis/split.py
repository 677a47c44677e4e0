"""A decision whose limits live in several slots of a Cluster: each group decides for itself, then all or nothing.

No script sees keys of two slots, so the groups decide at the same time. What a group consumed is given back when
another denied or did not answer. Until then other checks may be denied in error; none is admitted in error.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import msgspec

from data_plane.store.packing import SHADOW, Outcome, encode_check, figures_of
from data_plane.store.ports import CallbackCheck, CounterCheck, StoreUnavailableError
from data_plane.store.redis.calls import Answers
from data_plane.store.redis.status import StoreStats
from data_plane.store.subjects import give_back_key

log = logging.getLogger(__name__)

MOST_UNDER_WAY = 256
ID_BYTES = 8
REMEMBERED_MS = 60_000
"""Longer than ``SideClient`` goes on trying."""
CallScript = Callable[[str, Sequence[bytes], Sequence[bytes | int]], Awaitable[object]]
Answer = Sequence[Outcome] | StoreUnavailableError
GiveBack = Callable[[CounterCheck, int], None]
"""Starts returning what a check consumed at that time of the store's clock, in microseconds; returns at once."""


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
            self._note_clocks()
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

    def _note_clocks(self) -> None:
        """Note when each group was consumed, by the clock of its server; giving back later needs it."""
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
    return CallbackCheck([check.keys[at] for at in took], [params[at] for at in took], check.cost)


class GiveBacks:
    """Runs the give-back script beside the hot pipeline.

    One that fails, or that comes when too many are under way, is only counted: what stays consumed denies too much for
    the rest of a window and never admits too much.
    """

    def __init__(
        self, script: str, call_script: CallScript, dirty_key: Callable[[bytes], bytes], stats: StoreStats,
        random_bytes: Callable[[int], bytes],
    ) -> None:  # fmt: skip
        self._script = script
        self._call_script = call_script
        self._random_bytes = random_bytes
        self._dirty_key = dirty_key
        self._stats = stats
        self._under_way: set[asyncio.Task[None]] = set()

    def __call__(self, check: CounterCheck, now_us: int) -> None:
        """Give back what ``check`` consumed when the store's clock was ``now_us``."""
        if len(self._under_way) >= MOST_UNDER_WAY:
            self._stats.give_back_failures += 1
            return
        task = asyncio.create_task(self._run(check, now_us), name="redis-give-back")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def finish(self) -> None:
        """Wait for those under way; each is bounded by the client's own time-out."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _run(self, check: CounterCheck, now_us: int) -> None:
        own = give_back_key(check.keys[0], self._random_bytes(ID_BYTES))
        keys = [self._dirty_key(check.keys[0]), own, *check.keys]
        arguments: list[bytes | int] = [now_us, encode_check(check.cost, check.params), REMEMBERED_MS]
        try:
            await self._call_script(self._script, keys, arguments)
        except StoreUnavailableError as error:
            self._stats.give_back_failures += 1
            log.warning("could not give back what a denied decision consumed: %s", error)
        else:
            self._stats.given_back += 1


def _before(outcome: Outcome, cost: int) -> Outcome:
    """A limit as it stood before it was consumed. A shadow limit that would have denied consumed nothing."""
    if not outcome.allowed:
        return outcome
    return msgspec.structs.replace(outcome, remaining=outcome.remaining + cost, delay_us=0)
