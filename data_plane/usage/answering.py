"""Answers questions of the control plane: a client's limits as the store has them now, usage shipped at once, denials,
and the state of the exchange with other regions.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from data_plane.config.index import RuleIndex
from data_plane.decide.denial_ring import Found, RedisDenials
from data_plane.decide.limits_now import is_tellable, limits_now
from data_plane.process import ControlPlaneUnavailableError
from data_plane.store.ports import Clock, CounterStore, StoreUnavailableError
from data_plane.usage.stream import HttpUsageSink
from tidegate.contract.denials import DenialQuery
from tidegate.contract.questions import MAX_FIGURES, NodeAnswer, Question, RegionExchange

log = structlog.get_logger()
WAIT_S = 20.0
AGAIN_S = 1.0
SHIP_WITHIN_S = 0.9
FIND_WITHIN_S = 0.5
"""The control plane waits for a second."""


class QuestionAnswerer:
    """Answers for the region while ``has_lease()``: one agent of the region does."""

    def __init__(
        self, node: str, transport: HttpUsageSink, store: CounterStore, clock: Clock,
        index: Callable[[], RuleIndex], revision: Callable[[], int], has_lease: Callable[[], bool],
        ship: Callable[[], Awaitable[None]], denials: RedisDenials | None = None,
        exchange: Callable[[], RegionExchange] | None = None,
    ) -> None:  # fmt: skip
        self._exchange = exchange
        self._denials = denials
        self._node = node
        self._transport = transport
        self._store = store
        self._clock = clock
        self._index = index
        self._revision = revision
        self._has_lease = has_lease
        self._ship = ship

    async def run(self) -> None:
        """Answer for ever."""
        while True:
            if not self._has_lease():
                await asyncio.sleep(AGAIN_S)
                continue
            try:
                for question in await self._transport.questions(WAIT_S):
                    await self._transport.answer(await self.answer(question))
            except ControlPlaneUnavailableError as error:
                log.debug("no_questions", reason=str(error))
                await asyncio.sleep(AGAIN_S)

    async def answer(self, question: Question) -> NodeAnswer:
        """Answer one question. It reads limits without taking from them."""
        if question.exchange and self._exchange is not None:
            return NodeAnswer(id=question.id, node=self._node, revision=self._revision(), exchange=self._exchange())
        if question.denials is not None:
            return await self._find(question.id, question.denials)
        if question.about == "usage":
            return NodeAnswer(
                id=question.id, node=self._node, revision=self._revision(), error=await self._why_not_shipped()
            )
        index, revision = self._index(), self._revision()
        principal = index.clients.get(question.client)
        if principal is None:
            return NodeAnswer(id=question.id, node=self._node, revision=revision, error="the client is not known here")
        known = index.book.all_limits(principal.client, self._clock.now_us() / 1_000_000)
        rules = [rule for rule in known if is_tellable(rule)][:MAX_FIGURES]
        try:
            figures = tuple(await limits_now(self._store, index.book, principal, rules))
        except StoreUnavailableError:
            return NodeAnswer(id=question.id, node=self._node, revision=revision, error="the store does not answer")
        return NodeAnswer(id=question.id, node=self._node, revision=revision, figures=figures)

    async def _find(self, id: str, query: DenialQuery) -> NodeAnswer:
        found = Found([], "no denials are kept here")
        if self._denials is not None:
            try:
                found = await self._denials.find(query, FIND_WITHIN_S)
            except StoreUnavailableError:
                found = Found([], "the store does not answer")
        return NodeAnswer(
            id=id, node=self._node, revision=self._revision(), error=found.why_not_all, denials=tuple(found.denials)
        )

    async def _why_not_shipped(self) -> str | None:
        try:
            async with asyncio.timeout(SHIP_WITHIN_S):
                await self._ship()
        except TimeoutError:
            return f"more waits than the region ships in {SHIP_WITHIN_S:g} s"
        except StoreUnavailableError:
            return "the store does not answer"
        return None
