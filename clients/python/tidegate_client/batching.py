"""Micro-batching: the checks that come while two batches are on their way form the next one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from tidegate_client.messages import (
    Check,
    Decision,
    GarbledAnswerError,
    InvalidCheckError,
    encoded,
    read_batch,
    read_decision,
)
from tidegate_client.nodes import CHECK_BATCH, Answered, NoAnswerError

MOST_IN_FLIGHT = 2
MOST_WAITING = 100_000
# A node takes 1 MiB: beyond it the whole batch would be refused, and one end user's long path would speak for others.
MOST_BODY_BYTES = 512 * 1024
# What a node takes of a caller without a token, where it does not trust its network.
STRANGERS_BATCH = 10
STRANGERS_BODY_BYTES = 64 * 1024
Post = Callable[[str, bytes], Awaitable[Answered]]


class _Waiting(NamedTuple):
    body: bytes
    answer: "asyncio.Future[Decision]"


class Batcher:
    """Turns checks into ``POST /v1/check/batch``. A lone check is sent at once."""

    def __init__(self, post: Post, max_batch: int) -> None:
        self.post = post
        self._max_batch = max_batch
        self._max_bytes = MOST_BODY_BYTES
        self._waiting: deque[_Waiting] = deque()
        self._in_flight: set[asyncio.Task[None]] = set()
        self._begins = False
        self.batches = 0

    async def decide(self, check: Check, cost: int) -> Decision:
        """The node's decision. Raises ``NoAnswerError`` or ``InvalidCheckError``."""
        if len(self._waiting) >= MOST_WAITING:
            raise NoAnswerError("too many checks are waiting")
        body = encoded(check, {"cost": cost})
        if len(body) > MOST_BODY_BYTES:
            raise InvalidCheckError(f"the check is over {MOST_BODY_BYTES} bytes")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Decision] = loop.create_future()
        self._waiting.append(_Waiting(body, answer))
        if not self._begins and len(self._in_flight) < MOST_IN_FLIGHT:
            self._begins = True
            loop.call_soon(self._begin)  # whatever else comes in this turn of the loop goes along
        return await answer

    def _begin(self) -> None:
        self._begins = False
        while self._waiting and len(self._in_flight) < MOST_IN_FLIGHT:
            batch = self._next_batch()
            if batch:
                task = asyncio.create_task(self._send(batch))
                self._in_flight.add(task)
                task.add_done_callback(self._sent)

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        size = 0
        while self._waiting and len(batch) < self._max_batch:
            size += len(self._waiting[0].body) + 1
            if batch and size > self._max_bytes:
                break
            waiting = self._waiting.popleft()
            if not waiting.answer.done():  # nothing is counted for a caller that gave up meanwhile
                batch.append(waiting)
        return batch

    def _sent(self, task: "asyncio.Task[None]") -> None:
        self._in_flight.discard(task)
        self._begin()

    async def _send(self, batch: Sequence[_Waiting]) -> None:
        self.batches += 1
        body = b'{"checks":[%b]}' % b",".join([waiting.body for waiting in batch])
        try:
            answered = await self.post(CHECK_BATCH, body)
            is_large = len(batch) > STRANGERS_BATCH or len(body) > STRANGERS_BODY_BYTES
            if answered.status == 403 and is_large and len(batch) > 1:
                # Refused as a whole before anything was counted: such a node wants small batches without a token.
                # By the size of this one: another that was on its way may have been refused first.
                self._max_batch = min(self._max_batch, STRANGERS_BATCH)
                self._max_bytes = STRANGERS_BODY_BYTES - 1024
                self._waiting.extendleft(reversed(batch))
                return
            if answered.status != 200:
                raise _refused(answered)
            decisions = read_batch(answered.body, len(batch))
        except GarbledAnswerError as error:
            _fail(batch, NoAnswerError(str(error)))
        except (NoAnswerError, InvalidCheckError) as error:
            _fail(batch, error)
        except asyncio.CancelledError:
            _fail(batch, NoAnswerError("closed"))
            raise
        else:
            for waiting, decision in zip(batch, decisions, strict=True):
                if waiting.answer.done():
                    continue
                if isinstance(decision, Decision):
                    waiting.answer.set_result(decision)
                else:
                    waiting.answer.set_exception(decision)

    async def aclose(self) -> None:
        """End what is on its way; whoever waits gets ``NoAnswerError``."""
        _fail(self._waiting, NoAnswerError("closed"))
        self._waiting.clear()
        for task in self._in_flight:
            task.cancel()
        await asyncio.gather(*self._in_flight, return_exceptions=True)


def _refused(answered: Answered) -> Exception:
    """A whole batch was refused: a wrong token or an unreadable body is a mistake of the set-up, not a denial."""
    if answered.status in {400, 413, 422}:
        return InvalidCheckError(answered.body[:500].decode("utf-8", "replace"))
    return NoAnswerError(f"status {answered.status}")


def _fail(batch: "Sequence[_Waiting] | deque[_Waiting]", error: Exception) -> None:
    for waiting in batch:
        if not waiting.answer.done():
            waiting.answer.set_exception(error)


def understood(answered: Answered) -> Decision:
    """The decision in an answer. Raises ``InvalidCheckError``, ``NoAnswerError``, ``GarbledAnswerError``."""
    if answered.status in {400, 413, 422}:
        raise InvalidCheckError(answered.body[:500].decode("utf-8", "replace"))
    if answered.status not in {200, 401, 403, 429}:
        raise NoAnswerError(f"status {answered.status}")
    decision = read_decision(answered.body)
    if isinstance(decision, InvalidCheckError):
        raise decision
    return decision
