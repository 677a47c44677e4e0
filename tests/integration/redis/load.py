"""Decisions for tests: make them, submit them, and keep every answer, so that a missing or second one shows."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

from data_plane.store.packing import Outcome, encode_rule
from data_plane.store.ports import CallbackCheck, StoreUnavailableError
from data_plane.store.redis.store import RedisCounterStore
from tidegate.contract.limits import LimitRule

HOUR_US = 3_600_000_000
Answer = Sequence[Outcome] | StoreUnavailableError


def rule(limit: int, *, shadow: bool = False) -> bytes:
    """A packed limit of ``limit`` units in a fixed hour."""
    return encode_rule(
        LimitRule(id=1, name="l", algorithm="fixed_window", limit=limit, window_us=HOUR_US, shadow=shadow)
    )


class Ask:
    """One decision under way: its answers (there must be exactly one), and how long that took."""

    def __init__(self, store: RedisCounterStore, keys: Sequence[bytes], limits: Sequence[bytes], cost: int = 1) -> None:
        self.answers: list[Answer] = []
        self.took_s = 0.0
        self.answered = asyncio.Event()
        self._start = time.perf_counter()
        store.submit(CallbackCheck(keys, limits, cost, self._done))

    def _done(self, answer: Answer, now_us: int) -> None:
        self.answers.append(answer)
        self.took_s = time.perf_counter() - self._start
        self.answered.set()

    @property
    def verdict(self) -> str:
        """``allowed``, ``denied``, or the reason why there was no decision."""
        answer = self.answers[0]
        if isinstance(answer, StoreUnavailableError):
            return answer.reason
        return "allowed" if all(outcome.allowed for outcome in answer) else "denied"


async def ask(store: RedisCounterStore, keys: Sequence[bytes], limits: Sequence[bytes], cost: int = 1) -> Ask:
    """One decision, answered."""
    one = Ask(store, keys, limits, cost)
    await asyncio.wait_for(one.answered.wait(), 5)
    return one


class Load:
    """A steady stream of decisions on 50 keys, four every millisecond or so, until ``stop``."""

    def __init__(self, store: RedisCounterStore) -> None:
        self.asks: list[Ask] = []
        self._store = store
        self._limits = (rule(10**9),)
        self._stopping = False
        self._longest_pause_s = 0.0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        began_s = time.perf_counter()
        while not self._stopping or not self.asks[-1].answers:
            for _ in range(0 if self._stopping or len(self.asks) >= 200_000 else 4):
                self.asks.append(Ask(self._store, (b"{s%d}" % (len(self.asks) % 50),), self._limits))
            await asyncio.sleep(0.001)
            began_s, before_s = time.perf_counter(), began_s
            self._longest_pause_s = max(self._longest_pause_s, began_s - before_s)

    async def verdicts(self, count: int, wanted: str, timeout_s: float = 10.0) -> None:
        """Wait until ``count`` more decisions ended with ``wanted``."""
        start = len(self.asks)
        async with asyncio.timeout(timeout_s):
            while sum(one.verdict == wanted for one in self.asks[start:] if one.answers) < count:
                await asyncio.sleep(0.005)

    async def stop(self) -> Counter[str]:
        """Stop; how the decisions ended, after checking that each had exactly one answer."""
        self._stopping = True
        async with asyncio.timeout(5):
            await self._task
            for one in self.asks:
                await one.answered.wait()
        await asyncio.sleep(0)
        assert {len(one.answers) for one in self.asks} == {1}
        return Counter(one.verdict for one in self.asks)

    def slowest_ms(self) -> float:
        """The longest that any decision waited for its answer, less what the machine kept this process from.

        A pause of the loop delays a timer that is due and may delay the next one too: two of the longest are taken off.
        """
        return (max(one.took_s for one in self.asks) - 2 * self._longest_pause_s) * 1000
