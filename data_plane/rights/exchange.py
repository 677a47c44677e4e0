"""Rights of ``strict`` limits on their way between regions: this agent asks for what its region lacks, and gives.

A decision that leaves too little says so (``low``); while rights are plentiful nobody says anything. Steps on counters
go over connections that have joined the store: none can act on another epoch of it.
"""

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import structlog

from data_plane.config.index import RuleIndex
from data_plane.config.limits_of_keys import StrictLimit, StrictLimits
from data_plane.config.strict_limits import whole_shares
from data_plane.rights.asking import Asker
from data_plane.rights.steps import Question, RightsSteps, RightsTally, RightsTransport, is_plausible
from data_plane.rights.waiting import LowCounters
from data_plane.store import rights_messages as messages
from data_plane.store.ports import Clock, CounterStore, StoreUnavailableError, UnreachablePeerError
from data_plane.store.rights_messages import Gift as Total
from data_plane.store.strict_packing import basis_of, given, known_gift, received
from tidegate.contract.calendar import grid_of, id_at, start_us
from tidegate.contract.limits import nominal_window_us
from tidegate.contract.rights import MAX_ASKS, Ask, Asks, Gift, Gifts

log = structlog.get_logger()

FORGET_AFTER_US = 60_000_000
AGAIN_S = 0.5


class LowCountersOfNodes(Protocol):
    """Counters of the region that are low. Every method raises ``StoreUnavailableError``."""

    async def take(self) -> Mapping[bytes, int]:
        """Those that nodes named since this was last asked, with what requests cost; waits a while for some."""
        ...

    async def rest(self, key: bytes, for_us: int, *, hopeless: bool) -> None:
        """Let nodes know that nobody is asked for this one for so long; ``hopeless``: nobody has any."""
        ...

    async def wake(self, key: bytes) -> None:
        """Let them know that somebody can."""
        ...


class RightsExchange:
    """Asks peers for rights, and answers theirs; neither before ``is_proven()`` says that its shares are the newest."""

    def __init__(
        self, region: str, store: CounterStore, transport: RightsTransport, clock: Clock,
        index: Callable[[], RuleIndex], revision: Callable[[], int], inbox: LowCountersOfNodes,
        is_proven: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._region = region
        self._inbox = inbox
        self._is_proven = is_proven
        self._transport = transport
        self._clock = clock
        self._index = index
        self._limits = StrictLimits(region, index, revision)
        self._asker = Asker(())
        self._peers: Mapping[str, str] = {}
        self._lives: dict[str, int] = {}
        self._low = LowCounters()
        self._under_way: set[asyncio.Task[None]] = set()
        self._looked_us = self._swept_us = 0
        self.tally = RightsTally()
        self._steps = RightsSteps(store, self.tally)

    def horizon_us(self) -> int:
        """How long rights should last before more are asked for, as measured; 0 where there is nobody to ask."""
        self._refresh_peers()
        return self._asker.horizon_us() if self._peers else 0

    def low(self, key: bytes, cost: int) -> None:
        """A counter has little left for requests of ``cost``: ask for more soon.

        Returns at once; may be called for every decision.
        """
        self._low.add(key, cost, self._clock.now_us())

    async def run(self) -> None:
        """Ask, for ever."""
        while True:
            await self._low.told.wait()
            self._low.told.clear()
            try:
                await self._ask_for_low()
            except StoreUnavailableError as error:
                log.warning("rights_not_asked", reason=error.reason)

    async def hear(self) -> None:
        """Take what nodes say is low, for ever."""
        while True:
            try:
                for key, cost in (await self._inbox.take()).items():
                    self.low(key, cost)
            except StoreUnavailableError as error:
                log.debug("low_not_heard", reason=error.reason)
                await asyncio.sleep(AGAIN_S)

    async def stop(self) -> None:
        """Give up questions that are under way."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def give(self, asks: Asks) -> Gifts:
        """Answer a verified peer's questions. Raises ``StoreUnavailableError`` when the store answers none, or shares
        are not proven.
        """
        if not self._is_proven():
            raise StoreUnavailableError("shares_not_proven")
        self._learn(asks.region, asks.incarnation)
        self.tally.questions[asks.region] += len(asks.asks)
        now_s = self._clock.now_us() / 1e6
        known = [(ask, limit) for ask in asks.asks if (limit := self._limits.of_key(ask.key, now_s)) is not None]
        answers = await asyncio.gather(*(self._given(asks, ask, limit) for ask, limit in known), return_exceptions=True)
        gifts: list[Gift] = []
        life = 0
        failed: StoreUnavailableError | None = None
        for answer in answers:
            if isinstance(answer, StoreUnavailableError):
                failed = answer
            elif isinstance(answer, BaseException):
                raise answer
            elif answer is not None:
                gift, life = answer
                gifts.append(gift)
        if failed is not None and not gifts:
            raise failed
        return Gifts(
            region=self._region, incarnation=life, to_incarnation=asks.incarnation,
            sent_at=self._clock.now_us() / 1e6, gifts=tuple(gifts),
        )  # fmt: skip

    async def _given(self, asks: Asks, ask: Ask, limit: StrictLimit) -> tuple[Gift, int] | None:
        terms = limit.terms
        known = Total(ask.units, ask.quanta)
        give = terms.give(asks.region, asks.incarnation, ask.id, ask.to_incarnation, known, ask.have, ask.rate)
        outcomes = await self._steps.take(ask.key, [give, terms.known(asks.region, 0, 0)])
        if outcomes is None:
            return None
        answer, (_, life) = given(outcomes[0]), known_gift(outcomes[1])
        # Its own question says what a peer has: that is news for ours.
        heard = messages.Ask(
            _name(ask.key)[0], 0, 0, ask.id, asks.region, asks.incarnation, 0, known, ask.have, ask.rate, 0
        )
        self._asker.heard(_name(ask.key), heard)
        if ask.have > 0 and self._low.wake(ask.key):
            await self._inbox.wake(ask.key)
        self.tally.hold(ask.key, limit.rule.name, answer.have, self._clock.now_us())
        if life and not answer.is_repeat:
            self.tally.units_given[asks.region] += max(0, answer.total.units - ask.units)
        return Gift(ask.key, ask.id, answer.total.units, answer.total.quanta, answer.have, answer.is_empty), life

    async def _ask_for_low(self) -> None:
        self._refresh_peers()
        low = self._low.take()
        self._sweep()
        if not self._peers or not self._is_proven():
            return
        questions = await asyncio.gather(*(self._question(*one) for one in low.items()), return_exceptions=True)
        by_peer: dict[str, list[Question]] = {}
        for found in questions:
            if isinstance(found, BaseException) and not isinstance(found, StoreUnavailableError):
                raise found
            if isinstance(found, tuple) and not isinstance(found, StoreUnavailableError):
                peer, question = found
                by_peer.setdefault(peer, []).append(question)
        for peer, group in by_peer.items():
            for start in range(0, len(group), MAX_ASKS):
                task = asyncio.create_task(self._put(peer, group[start : start + MAX_ASKS]))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)

    async def _question(self, key: bytes, cost: int) -> tuple[str, Question] | None:
        """Whom to ask for rights of this counter, and what; ``None`` where nobody is to be asked now."""
        now_us = self._clock.now_us()
        limit = self._limits.of_key(key, now_us / 1e6)
        if limit is None:
            return None
        frame = grid_of(limit.rule)
        if self._asker.is_waiting(_name(key), id_at(frame, now_us), now_us):
            return None
        outcomes = await self._steps.take(key, [limit.terms.basis()], cost)
        need = None if outcomes is None else basis_of(outcomes[0])
        if need is not None:
            self.tally.hold(key, limit.rule.name, need.have, now_us)
        if need is None or not need.low:
            return None
        peer = self._asker.whom(_name(key), need.id, whole_shares(limit.rule), cost - need.have, now_us)
        if peer is None or peer not in self._peers:
            rest = self._asker.rest(_name(key), need.id, start_us(frame, need.id + 1), now_us)
            self._low.rest(key, rest.until_us, now_us)
            if rest.until_us > now_us:
                await self._inbox.rest(key, rest.until_us - now_us, hopeless=rest.hopeless)
            return None
        life = self._lives.get(peer, 0)
        outcomes = await self._steps.take(key, [limit.terms.known(peer, life, need.id)])
        if outcomes is None:
            return None
        known, own_life = known_gift(outcomes[0])
        if self._low.wake(key):
            await self._inbox.wake(key)
        question = Question(key, limit, Ask(key, need.id, life, known.units, known.quanta, need.have, need.rate), cost)
        self._note_asked(question, peer, own_life, now_us)
        return peer, question

    def _note_asked(self, question: Question, peer: str, own_life: int, now_us: int) -> None:
        self._lives[self._region] = own_life
        key, id = question.key, question.ask.id
        asked = messages.Ask(_name(key)[0], 0, 0, id, self._region, own_life, 0, Total(), 0, 0, now_us)
        look_again_us = self._asker.asked(_name(key), asked, peer, now_us)
        loop = asyncio.get_running_loop()
        loop.call_later((look_again_us - now_us) / 1e6, self.low, key, question.cost)

    async def _put(self, peer: str, questions: Sequence[Question]) -> None:
        """Put questions to one peer and take its answers."""
        asked_us = self._clock.now_us()
        own_life = self._lives.get(self._region, 0)
        asks = Asks(
            region=self._region, incarnation=own_life, sent_at=asked_us / 1e6,
            asks=tuple(question.ask for question in questions),
        )  # fmt: skip
        self.tally.messages[peer] += 1
        self.tally.asked[peer] += len(questions)
        try:
            gifts = await self._transport.ask(peer, self._peers[peer], asks)
        except (UnreachablePeerError, KeyError):
            self.tally.failures[peer] += 1
            return
        self._learn(peer, gifts.incarnation)
        by_key = {gift.key: gift for gift in gifts.gifts}
        taken = (
            self._take(question, gifts, by_key[question.key], asked_us)
            for question in questions
            if question.key in by_key
        )
        for outcome in await asyncio.gather(*taken, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, StoreUnavailableError):
                raise outcome

    async def _take(self, question: Question, gifts: Gifts, gift: Gift, asked_us: int) -> None:
        if not is_plausible(question, gifts, gift):
            self.tally.refused["implausible_gift"] += 1
            return
        total = Total(gift.units, gift.quanta)
        receive = question.limit.terms.receive(gifts.region, gifts.incarnation, gifts.to_incarnation, gift.id, total)
        outcomes = await self._steps.take(question.key, [receive], question.cost)
        if outcomes is None:
            return
        taken = received(outcomes[0])
        now_us = self._clock.now_us()
        answer = messages.Give(
            _name(question.key)[0], 0, gift.id, gifts.region, gifts.incarnation, gifts.to_incarnation, total,
            gift.have, gift.is_empty, asked_us, now_us,
        )  # fmt: skip
        self._asker.answered(_name(question.key), answer, taken.gained, now_us, refill_us=_refill_us(question))
        if taken.gained and self._low.wake(question.key):
            await self._inbox.wake(question.key)
        self.tally.units_received[gifts.region] += taken.gained
        self.tally.hold(question.key, question.limit.rule.name, question.ask.have + taken.gained, now_us)
        if taken.low:
            self.low(question.key, question.cost)

    def _learn(self, peer: str, life: int) -> None:
        if life:
            self._lives[peer] = life

    def _refresh_peers(self) -> None:
        regions = self._index().book.regions
        peers = {
            name: region.peer_url
            for name, region in regions.items()
            if name != self._region and region.peer_url is not None
        }
        if peers.keys() != self._peers.keys():
            self._asker.meet(peers)
        self._peers = peers

    def _sweep(self) -> None:
        """Forget, now and then, what was not asked for lately; where the clock was set back, whatever was."""
        before_us, self._looked_us = self._looked_us, self._clock.now_us()
        now_us, set_back = self._looked_us, self._looked_us < before_us
        if set_back or now_us - self._swept_us > FORGET_AFTER_US:
            self._swept_us = now_us
            self._asker.forget_idle(sys.maxsize if set_back else now_us - FORGET_AFTER_US)
            self._low.forget(now_us)


def _name(key: bytes) -> tuple[str, int]:
    """A counter as the asker knows it; its generation is part of the key."""
    return key.decode("latin-1"), 0


def _refill_us(question: Question) -> int:
    """How long the whole bucket takes to fill by what was missing here; 0 for windows, which do not fill."""
    if not question.limit.terms.is_bucket:
        return 0
    rule = question.limit.rule
    missing = max(1, question.cost - question.ask.have)
    return max(1, missing * nominal_window_us(rule) // rule.limit)
