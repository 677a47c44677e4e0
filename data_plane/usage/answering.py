"""Answers to what the control plane asks: each limit of a client as the region's store has it now, usage at once, whom
the region denied, or how it stands to other regions.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from data_plane.config.index import RuleIndex
from data_plane.decide.denial_ring import DenialStore, Found
from data_plane.decide.limits_now import is_tellable, limits_now
from data_plane.store.ports import Clock, CounterStore, StoreUnavailableError
from data_plane.usage.shipper import ControlPlaneAwayError
from tidegate.contract.denials import DenialQuery
from tidegate.contract.questions import MAX_FIGURES, NodeAnswer, Question, RegionExchange

log = structlog.get_logger()
WAIT_S = 20.0
AGAIN_S = 1.0
SHIP_WITHIN_S = 0.9
FIND_WITHIN_S = 0.5
"""Who asks waits for a second."""


class QuestionLine(Protocol):
    """The way to the control plane. Every method raises ``ControlPlaneAwayError``."""

    async def questions(self, wait_s: float) -> Sequence[Question]:
        """What it wants to know; empty when nobody asked within ``wait_s``."""
        ...

    async def answer(self, answer: NodeAnswer) -> None:
        """Tell it."""
        ...


class Answering:
    """Answers while ``is_mine()``: one node of a region does."""

    def __init__(
        self, node: str, line: QuestionLine, store: CounterStore, clock: Clock,
        index: Callable[[], RuleIndex], revision: Callable[[], int], is_mine: Callable[[], bool],
        ship: Callable[[], Awaitable[None]], denials: DenialStore | None = None,
        exchange: Callable[[], RegionExchange] | None = None,
    ) -> None:  # fmt: skip
        self._exchange = exchange
        self._denials = denials
        self._node = node
        self._line = line
        self._store = store
        self._clock = clock
        self._index = index
        self._revision = revision
        self._is_mine = is_mine
        self._ship = ship

    async def run(self) -> None:
        """Answer, for ever."""
        while True:
            if not self._is_mine():
                await asyncio.sleep(AGAIN_S)
                continue
            try:
                for question in await self._line.questions(WAIT_S):
                    await self._line.answer(await self.look(question))
            except ControlPlaneAwayError as error:
                log.debug("no_questions", reason=str(error))
                await asyncio.sleep(AGAIN_S)

    async def look(self, question: Question) -> NodeAnswer:
        """What this region knows of a client now, taking nothing; or whom it denied; how it stands; usage shipped."""
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
