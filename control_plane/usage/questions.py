"""Questions to the regions' nodes: asked on one replica, carried by whichever a node waits at, answered to the asker.

Replicas notify each other by NOTIFY. A question lives for a second or so, and nothing of it is stored.
"""

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import asyncpg
import msgspec

from control_plane.database import Database, chunks, translated
from control_plane.push.stream import Signal
from control_plane.regions import repository as regions
from control_plane.usage import repository
from tidegate.contract.decoding import UNREADABLE
from tidegate.contract.denials import Denial, DenialQuery
from tidegate.contract.questions import MAX_QUESTIONS, LimitFigure, NodeAnswer, Question, RegionExchange

QUESTIONS_CHANNEL = "tidegate_questions"
ANSWERS_CHANNEL = "tidegate_answers"
LIVE_S = 1.0
"""How long a region has to answer, including the wait until an agent takes the question."""
FIGURES_A_NOTICE = 60
"""A notification holds 8,000 bytes at most."""
DENIALS_BYTES_A_NOTICE = 4_000
"""One denial more may go beyond it: the longest is 3,000 bytes."""


class RegionAnswer(NamedTuple):
    """A region's answer, or why it is missing or incomplete."""

    node: str | None
    figures: Mapping[int, LimitFigure]
    reason: str | None
    denials: Sequence[Denial] = ()
    exchange: RegionExchange | None = None


class _Notice(msgspec.Struct, frozen=True, array_like=True):
    """A part of an answer between replicas."""

    id: str
    region: str
    node: str
    error: str | None
    parts: int
    figures: tuple[LimitFigure, ...]
    denials: tuple[Denial, ...] = ()
    exchange: RegionExchange | None = None


class _Waiting:
    """An asker with the answers so far, by region."""

    def __init__(self, regions: Iterable[str]) -> None:
        self.missing = set(regions)
        self.answers: dict[str, RegionAnswer] = {}
        self.parts: defaultdict[tuple[str, str], list[_Notice]] = defaultdict(list)
        self.done = asyncio.Event()

    def take(self, notice: _Notice) -> None:
        parts = self.parts[notice.region, notice.node]
        parts.append(notice)
        if notice.region not in self.missing or len(parts) < notice.parts:
            return
        figures = {figure.rule_id: figure for part in parts for figure in part.figures}
        denials = [denial for part in parts for denial in part.denials]
        self.answers[notice.region] = RegionAnswer(notice.node, figures, notice.error, denials, notice.exchange)
        self.missing.discard(notice.region)
        if not self.missing:
            self.done.set()


class NodeQuestions:
    """Questions asked on this replica, and questions to hand to agents that wait here."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._asked: dict[str, _Waiting] = {}
        self._open: list[tuple[float, Question]] = []
        self._handed_out: defaultdict[str, set[str]] = defaultdict(set)
        self._new = Signal()

    async def ask(self, client: str, names: Sequence[str]) -> dict[str, RegionAnswer]:
        """Each named region's figures of a client's limits, within a second; one without an answer has a reason."""
        return await self._ask(Question(secrets.token_hex(16), client), names)

    async def ship_now(self) -> dict[str, str | None]:
        """Let each region ship the usage that waits in its stream. By region ``None`` once that is committed, else why
        it is not, a second later at most.
        """
        answers = await self._ask_all(Question(secrets.token_hex(16), "", "usage"))
        return {region: answer.reason for region, answer in answers.items()}

    async def denials(self, query: DenialQuery) -> dict[str, RegionAnswer]:
        """Each region's stored denials that match, within a second."""
        return await self._ask_all(Question(secrets.token_hex(16), "", denials=query))

    async def exchange(self) -> dict[str, RegionAnswer]:
        """Each region's exchange with the others, within a second."""
        return await self._ask_all(Question(secrets.token_hex(16), "", exchange=True))

    async def _ask_all(self, question: Question) -> dict[str, RegionAnswer]:
        async with self._database.read() as session:  # given back before the regions are asked
            names = await regions.names(session)
        return await self._ask(question, names)

    async def _ask(self, question: Question, names: Sequence[str]) -> dict[str, RegionAnswer]:
        waiting = self._asked[question.id] = _Waiting(names)
        try:
            # not within the second: Postgres has a deadline of its own, and the second is the nodes'
            await self._notify(QUESTIONS_CHANNEL, [question])
            if names:
                async with asyncio.timeout(LIVE_S):
                    await waiting.done.wait()
        except TimeoutError:
            pass
        finally:
            del self._asked[question.id]
        unanswered = RegionAnswer(None, {}, f"no agent of this region answered within {LIVE_S:g} s")
        return {name: waiting.answers.get(name, unanswered) for name in names}

    async def next_for(self, region: str, wait_s: float) -> tuple[Question, ...]:
        """Questions for an agent of ``region``, each handed out once a region; empty after ``wait_s``."""
        deadline = time.monotonic() + wait_s
        while True:
            new = self._new.ticket()
            self._open = [(at, one) for at, one in self._open if time.monotonic() - at < LIVE_S]
            live = {one.id for _, one in self._open}
            self._handed_out[region] &= live
            found = [one for _, one in self._open if one.id not in self._handed_out[region]][:MAX_QUESTIONS]
            if found:
                self._handed_out[region] |= {one.id for one in found}
                return tuple(found)
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return ()
            await new.wait(left_s)

    async def answered(self, region: str, answer: NodeAnswer) -> None:
        """Pass an answer to the replica that asked."""
        none: tuple[Any, ...] = ()
        parts = list(zip_longest(chunks(answer.figures, FIGURES_A_NOTICE), _by_size(answer.denials), fillvalue=none))
        count = max(1, len(parts))
        notices = [
            _Notice(
                answer.id, region, answer.node, answer.error, count, tuple(figures), tuple(denials), answer.exchange
            )
            for figures, denials in parts or [(none, none)]
        ]
        await self._notify(ANSWERS_CHANNEL, notices)

    async def run(self) -> None:
        """Listen until cancelled, reconnecting as long as it takes."""
        await self._database.stay_connected(self._listen, "cannot receive questions")

    async def _listen(self, connection: asyncpg.Connection) -> None:
        with translated():
            await connection.add_listener(QUESTIONS_CHANNEL, lambda *notice: self._receive_question(str(notice[3])))
            await connection.add_listener(ANSWERS_CHANNEL, lambda *notice: self._receive_answer(str(notice[3])))
        await self._database.watch(connection)

    def _receive_question(self, payload: str) -> None:
        try:
            question = msgspec.json.decode(payload, type=Question)
        except UNREADABLE:
            return  # of another version
        self._open.append((time.monotonic(), question))
        del self._open[: -10 * MAX_QUESTIONS]
        self._new.fire()

    def _receive_answer(self, payload: str) -> None:
        try:
            notice = msgspec.json.decode(payload, type=_Notice)
        except UNREADABLE:
            return  # of another version
        waiting = self._asked.get(notice.id)
        if waiting is not None:
            waiting.take(notice)

    async def _notify(self, channel: str, notices: Sequence[msgspec.Struct]) -> None:
        """Send all notifications by one statement, as an asker waits for the last one."""
        payloads = [msgspec.json.encode(notice).decode() for notice in notices]
        async with self._database.transaction() as session:
            await repository.notify(session, channel, payloads)


def _by_size(denials: Sequence[Denial]) -> Iterator[tuple[Denial, ...]]:
    part: list[Denial] = []
    size = 0
    for denial in denials:
        part.append(denial)
        size += len(msgspec.json.encode(denial))
        if size >= DENIALS_BYTES_A_NOTICE:
            yield tuple(part)
            part, size = [], 0
    if part:
        yield tuple(part)
