"""Whom to tell which counts, and when a mark may go: the work of the node that holds a slice.

Marks lie in the region's store and name no version: what was told is compared with what is there now. Peers that answer
nothing for long do not hold marks up; when they are back they are told everything once.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from data_plane.domain.regions.book import Cell, Life
from data_plane.domain.regions.messages import Ack, Tell, Told
from data_plane.domain.regions.rules import Rules, Timing

Version = tuple[tuple[Life, Cell], ...]
"""A counter's own cells as they are now."""


class Marked(NamedTuple):
    """A counter with unsettled news: dirty since ``since_us``; ``is_pressing`` when it cannot wait a second."""

    key: str
    generation: int
    version: Version
    since_us: int
    is_pressing: bool


class _Peer:
    """What is known of one peer's knowledge."""

    def __init__(self) -> None:
        self.acked: dict[tuple[str, int], tuple[Version, int]] = {}
        self.unplaced: dict[tuple[str, int], int] = {}
        """When it was last told of counters that it cannot place: they count nowhere there, and hold nothing up."""
        self.in_flight: dict[int, dict[tuple[str, int], Version]] = {}
        self.silent_since_us: int | None = None
        self.next_heartbeat_us = 0


class Teller:
    """One slice's conversation with every peer. Times are the node's clock."""

    def __init__(
        self, region: str, slice_id: int, peers: Iterable[str], timing: Timing, rules: Rules, resend_us: int
    ) -> None:
        self._region = region
        self._slice = slice_id
        self._timing = timing
        self._rules = rules
        self._resend_us = max(resend_us, timing.tick_us)
        self._peers = {peer: _Peer() for peer in peers}

    def tell(
        self,
        peer_name: str,
        incarnation: int,
        marked: Sequence[Marked],
        now_us: int,
        waiting_since_us: int | None = None,
    ) -> Tell | None:
        """What to send to a peer now; ``None`` when there is nothing to say and no heartbeat due.

        ``waiting_since_us`` is the oldest mark that is not among ``marked``, because nothing of it is due.
        """
        peer = self._peers[peer_name]
        complete_us = now_us if waiting_since_us is None else min(now_us, waiting_since_us)
        news: list[Told] = []
        versions: dict[tuple[str, int], Version] = {}
        underway = self._underway(peer, now_us)
        for one in marked:
            name = (one.key, one.generation)
            known = peer.acked.get(name)
            if known is not None and known[0] == one.version:
                continue
            told_us = max(known[1] if known else 0, peer.unplaced.get(name, 0))
            sent, sent_us = underway.get(name, (None, 0))
            waits_since_us = max(one.since_us, told_us, sent_us)
            due = one.is_pressing or waits_since_us + self._timing.lazy_us <= now_us + self._timing.tick_us
            if due and sent != one.version:
                versions[name] = one.version
                news.extend(Told(one.key, one.generation, life, cell) for life, cell in one.version)
            else:
                complete_us = min(complete_us, max(one.since_us, told_us))
        if not news and now_us < peer.next_heartbeat_us:
            return None
        peer.next_heartbeat_us = now_us + self._timing.heartbeat_us
        peer.in_flight[now_us] = versions
        if not self._rules.heard_means_complete:
            complete_us = now_us
        if peer.silent_since_us is None:
            peer.silent_since_us = now_us
        return Tell(self._slice, self._region, incarnation, complete_us, now_us, tuple(news))

    def is_away(self, peer_name: str, now_us: int) -> bool:
        """Whether a peer has not answered for so long that marks do not wait for it."""
        return self._is_away(self._peers[peer_name], now_us)

    def acknowledged(self, ack: Ack, now_us: int, but_for: Collection[tuple[str, int]] = frozenset()) -> bool:
        """Note that a peer has what a ``Tell`` said; whether it was away and wants to be told everything.

        ``but_for`` are counters of it that the peer could not take yet: it is told of them again within a second.
        """
        peer = self._peers.get(ack.sender)
        if peer is None:
            return False
        versions = peer.in_flight.pop(ack.told_us, {})
        for name, version in versions.items():
            if name in but_for:
                peer.unplaced[name] = max(ack.told_us, peer.unplaced.get(name, 0))
                continue
            peer.unplaced.pop(name, None)
            known = peer.acked.get(name)
            if known is None or known[1] <= ack.told_us:
                peer.acked[name] = (version, ack.told_us)
        was_away = self._is_away(peer, now_us)
        peer.silent_since_us = None
        return was_away

    def settled(self, marked: Sequence[Marked], now_us: int) -> list[Marked]:
        """Marks that may go, if they are still what is given here."""
        if not self._rules.mark_outlives_sending:
            return [one for one in marked if all(self._was_sent(peer, one) for peer in self._peers.values())]
        here = [peer for peer in self._peers.values() if not self._is_away(peer, now_us)]
        return [
            one for one in marked
            if all(self._knows(peer, one) or self._cannot_place(peer, one, now_us) for peer in here)
        ]  # fmt: skip

    def forget(self, keys: Mapping[tuple[str, int], object]) -> None:
        """Drop what is remembered of counters that have no mark any more (all but ``keys``)."""
        for peer in self._peers.values():
            peer.acked = {name: known for name, known in peer.acked.items() if name in keys}
            peer.unplaced = {name: told_us for name, told_us in peer.unplaced.items() if name in keys}

    def _underway(self, peer: _Peer, now_us: int) -> dict[tuple[str, int], tuple[Version, int]]:
        """Versions sent, and when: so lately that the acknowledgement may still come. Older ones count as lost."""
        found: dict[tuple[str, int], tuple[Version, int]] = {}
        for sent_us, versions in list(peer.in_flight.items()):
            if sent_us + self._resend_us > now_us:
                found.update({name: (version, sent_us) for name, version in versions.items()})
            elif sent_us + 10 * self._resend_us < now_us:
                del peer.in_flight[sent_us]
        return found

    def _is_away(self, peer: _Peer, now_us: int) -> bool:
        return peer.silent_since_us is not None and now_us - peer.silent_since_us > self._timing.stale_after_us

    def _knows(self, peer: _Peer, one: Marked) -> bool:
        known = peer.acked.get((one.key, one.generation))
        if known is None:
            return False
        return known[0] == one.version or not self._rules.ack_clears_its_version

    def _cannot_place(self, peer: _Peer, one: Marked, now_us: int) -> bool:
        """Whether a peer has long had no such limit: the next change or sweep tells it again."""
        return (one.key, one.generation) in peer.unplaced and now_us - one.since_us > self._timing.stale_after_us

    def _was_sent(self, peer: _Peer, one: Marked) -> bool:
        name = (one.key, one.generation)
        return any(versions.get(name) == one.version for versions in peer.in_flight.values())


def is_pressing(unsent: int, room: int, regions: int, rules: Rules) -> bool:
    """Whether ``unsent`` units are much beside what is left: then peers should know within a tick."""
    return rules.large_news_at_once and unsent >= max(1, room // (4 * regions))
