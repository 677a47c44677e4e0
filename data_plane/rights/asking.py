"""Whom to ask for rights, and when: one node's view of every counter that runs low.

At most one question a counter is open; the richest peer as last heard is asked first; who had nothing is left in peace
until there is news; who does not answer within two round trips is passed over, each time for twice as long.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from data_plane.store.rights_messages import Ask, Give

FIRST_RTT_US = 200_000
PATIENCE_US = 1_000_000
"""The longest that a peer that did not answer is passed over; for buckets how long one that had nothing to lend is; and
the time between questions that are asked in vain as far as one knows: there may be news."""

Name = tuple[str, int]
"""A counter and its generation."""


class Rest(NamedTuple):
    """Until when nobody is to be asked; ``hopeless``: as far as is known nobody has what is missing."""

    until_us: int
    hopeless: bool


class _Quest:
    """The search for rights of one counter under one id."""

    def __init__(self) -> None:
        self.asked: str | None = None
        self.asked_us = 0
        self.silent: set[str] = set()
        self.passed_over_until_us: dict[str, int] = {}
        self.unanswered: dict[str, int] = {}
        self.have: dict[str, int] = {}
        self.empty: dict[str, int] = {}
        """How often in a row a peer had nothing to lend, less one."""


class Asker:
    """Questions of one node. Times are its clock."""

    def __init__(self, peers: Iterable[str]) -> None:
        self._peers = sorted(peers)
        self._quests: dict[Name, dict[int, _Quest]] = {}
        self._rtt_us: dict[str, int] = {}

    def meet(self, peers: Iterable[str]) -> None:
        """The peers that there are now."""
        self._peers = sorted(peers)

    def horizon_us(self) -> int:
        """How long rights should last: three round trips to the farthest peer that answers."""
        return 3 * max((self.rtt_us(peer) for peer in self._peers), default=FIRST_RTT_US)

    def rtt_us(self, peer: str) -> int:
        """The round trip as measured, smoothed."""
        return self._rtt_us.get(peer, FIRST_RTT_US)

    def whom(self, name: Name, id: int, shares: Mapping[str, int], missing: int, now_us: int) -> str | None:
        """The peer to ask now for rights of this counter, or nobody. ``shares`` tell what unheard peers may have.

        ``missing`` units are too few here for the request that wants them.
        """
        quest = self._quest(name, id)
        if self.is_waiting(name, id, now_us):
            return None
        if quest.asked is not None:
            quest.passed_over_until_us[quest.asked] = now_us + self._patience_us(quest, quest.asked)
            quest.unanswered[quest.asked] = min(quest.unanswered.get(quest.asked, 0) + 1, 20)
            quest.asked = None
        candidates = [peer for peer in self._peers if self._may_have(quest, peer, now_us)]
        if not candidates:
            return None
        have = {peer: quest.have.get(peer, shares.get(peer, 0)) for peer in candidates}
        in_vain = sum(have.values()) < missing
        if in_vain and now_us < quest.asked_us + PATIENCE_US:
            return None
        return max(candidates, key=have.__getitem__)

    def is_waiting(self, name: Name, id: int, now_us: int) -> bool:
        """Whether a question on this counter is open."""
        quest = self._quests.get(name, {}).get(id)
        return quest is not None and quest.asked is not None and now_us < quest.asked_us + 2 * self.rtt_us(quest.asked)

    def rest(self, name: Name, id: int, ends_us: int, now_us: int) -> Rest:
        """Until when ``whom`` will name nobody, as far as is known: ``ends_us`` at the latest."""
        quest = self._quest(name, id)
        if any(self._may_have(quest, peer, now_us) for peer in self._peers):
            # all of them together have less than is missing
            return Rest(min(ends_us, quest.asked_us + PATIENCE_US), True)
        waiting = [peer for peer in self._peers if peer not in quest.silent]
        until_us = min((quest.passed_over_until_us.get(peer, ends_us) for peer in waiting), default=ends_us)
        hopeless = all(peer in quest.empty or self._patience_us(quest, peer) >= PATIENCE_US for peer in waiting)
        return Rest(min(ends_us, until_us), hopeless)

    def asked(self, name: Name, ask: Ask, peer: str, now_us: int) -> int:
        """Note that the question goes out; when to look again if no answer came."""
        quest = self._quest(name, ask.id)
        quest.asked, quest.asked_us = peer, now_us
        return now_us + 2 * self.rtt_us(peer)

    def answered(self, name: Name, answer: Give, gained: int, now_us: int, *, refill_us: int = 0) -> None:
        """Learn from a peer's answer. ``refill_us``: how long a bucket, whole, takes to fill by what was missing."""
        round_trip_us = max(1, now_us - answer.asked_us)
        known_us = self._rtt_us.get(answer.sender)
        if known_us is None:
            self._rtt_us[answer.sender] = round_trip_us
        elif round_trip_us > known_us:
            self._rtt_us[answer.sender] = (7 * known_us + round_trip_us) // 8
        else:
            # A link that was slow is not believed to be for long: each lost question would cost two such trips.
            self._rtt_us[answer.sender] = (known_us + round_trip_us) // 2
        quest = self._quests.get(name, {}).get(answer.id)
        if quest is None:
            return
        quest.have[answer.sender] = answer.have
        quest.unanswered.pop(answer.sender, None)
        if quest.asked == answer.sender and quest.asked_us == answer.asked_us:
            # A copy of an older answer ends no open question: else questions would breed.
            quest.asked = None
        if gained and not refill_us and answer.have <= 0:
            quest.silent.add(answer.sender)  # that was the last of it
        elif gained:
            quest.silent.discard(answer.sender)
            quest.passed_over_until_us.pop(answer.sender, None)
            quest.empty.pop(answer.sender, None)
        elif answer.is_empty:
            if refill_us:
                # What it has may grow without a word. Asked in vain, it is asked after twice as long the next time.
                empty = quest.empty[answer.sender] = quest.empty.get(answer.sender, -1) + 1
                rest_us = min(PATIENCE_US << min(empty, 20), max(PATIENCE_US, refill_us))
                quest.passed_over_until_us[answer.sender] = now_us + rest_us
            else:
                quest.silent.add(answer.sender)

    def heard(self, name: Name, ask: Ask) -> None:
        """A peer's own question says what it has: that is news."""
        quest = self._quests.get(name, {}).get(ask.id)
        if quest is None:
            return
        quest.have[ask.sender] = ask.have
        if ask.have > 0:
            quest.silent.discard(ask.sender)

    def forget_idle(self, before_us: int) -> None:
        """Drop counters for which nothing was asked since ``before_us``: call it now and then, to bound memory."""
        self._quests = {
            name: quests
            for name, quests in self._quests.items()
            if any(quest.asked_us >= before_us for quest in quests.values())
        }

    def _quest(self, name: Name, id: int) -> _Quest:
        quests = self._quests.setdefault(name, {})
        if id not in quests:
            for bygone in [one for one in quests if one < id - 1]:
                del quests[bygone]
            quests[id] = _Quest()
        return quests[id]

    def _patience_us(self, quest: _Quest, peer: str) -> int:
        """For how long a peer that did not answer is passed over."""
        return min(PATIENCE_US, self.rtt_us(peer) << quest.unanswered.get(peer, 0))

    def _may_have(self, quest: _Quest, peer: str, now_us: int) -> bool:
        return peer not in quest.silent and quest.passed_over_until_us.get(peer, 0) <= now_us
