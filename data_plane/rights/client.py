"""Which peer to ask for rights, and when: one agent's view of every counter that is low.

A counter has at most one open request. The client asks the peer with the most rights first. It does not ask a peer that
had nothing until that peer reports rights. A peer that does not answer within two round trips is passed over, each time
for twice as long. Times are microseconds of the agent's clock.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

FIRST_RTT_US = 200_000
IN_VAIN_US = 1_000_000
"""Between two requests while all peers together have too little."""
PASSED_OVER_US = 1_000_000
"""For how long a peer that does not answer is passed over at most."""
REFILL_US = 1_000_000
"""For how long a peer whose bucket is empty is passed over at first."""


class BackOff(NamedTuple):
    """Until when no peer is asked; ``hopeless``: as far as known no peer has the missing units."""

    until_us: int
    hopeless: bool


class RightsAnswer(NamedTuple):
    """A peer's answer about one counter: the units that it keeps, and whether it had nothing to give."""

    peer: str
    id: int
    have: int
    is_empty: bool
    asked_us: int
    """The instant with which ``note_asked`` noted the request that it answers."""


class _PendingRequest:
    """The search for rights of one counter under one id."""

    def __init__(self) -> None:
        self.asked: str | None = None
        self.asked_us = 0
        self.exhausted: set[str] = set()
        self.passed_over_until_us: dict[str, int] = {}
        self.unanswered: dict[str, int] = {}
        self.have: dict[str, int] = {}
        self.empty: dict[str, int] = {}
        """How many times in a row a peer had nothing to lend, less one."""


class RightsClient:
    """Chooses peers to ask for rights, and learns from their answers."""

    def __init__(self, peers: Iterable[str]) -> None:
        self._peers = sorted(peers)
        self._pending: dict[bytes, dict[int, _PendingRequest]] = {}
        self._rtt_us: dict[str, int] = {}

    def set_peers(self, peers: Iterable[str]) -> None:
        """Replace the peers that may be asked."""
        self._peers = sorted(peers)

    def horizon_us(self) -> int:
        """For how long rights should last: three round trips to the farthest peer that answers."""
        return 3 * max((self.rtt_us(peer) for peer in self._peers), default=FIRST_RTT_US)

    def rtt_us(self, peer: str) -> int:
        """The smoothed round trip to a peer."""
        return self._rtt_us.get(peer, FIRST_RTT_US)

    def choose_peer(self, key: bytes, id: int, shares: Mapping[str, int], missing: int, now_us: int) -> str | None:
        """The peer to ask now for rights of a counter, or ``None``.

        ``shares`` estimates what peers have that reported nothing yet; ``missing`` is how many units the request lacks.
        """
        pending = self._request(key, id)
        if self.is_waiting(key, id, now_us):
            return None
        if pending.asked is not None:
            pending.passed_over_until_us[pending.asked] = now_us + self._passed_over_us(pending, pending.asked)
            pending.unanswered[pending.asked] = min(pending.unanswered.get(pending.asked, 0) + 1, 20)
            pending.asked = None
        candidates = [peer for peer in self._peers if self._may_have(pending, peer, now_us)]
        if not candidates:
            return None
        have = {peer: pending.have.get(peer, shares.get(peer, 0)) for peer in candidates}
        in_vain = sum(have.values()) < missing
        if in_vain and now_us < pending.asked_us + IN_VAIN_US:
            return None
        return max(candidates, key=have.__getitem__)

    def is_waiting(self, key: bytes, id: int, now_us: int) -> bool:
        """Whether an answer about this counter may still come."""
        pending = self._pending.get(key, {}).get(id)
        if pending is None or pending.asked is None:
            return False
        return now_us < pending.asked_us + 2 * self.rtt_us(pending.asked)

    def back_off(self, key: bytes, id: int, ends_us: int, now_us: int) -> BackOff:
        """Until when ``choose_peer`` returns ``None``, as far as known: ``ends_us`` at the latest."""
        pending = self._request(key, id)
        if any(self._may_have(pending, peer, now_us) for peer in self._peers):
            # all peers together have less than is missing
            return BackOff(min(ends_us, pending.asked_us + IN_VAIN_US), True)
        left = [peer for peer in self._peers if peer not in pending.exhausted]
        until_us = min((pending.passed_over_until_us.get(peer, ends_us) for peer in left), default=ends_us)
        hopeless = all(peer in pending.empty or self._passed_over_us(pending, peer) >= PASSED_OVER_US for peer in left)
        return BackOff(min(ends_us, until_us), hopeless)

    def note_asked(self, key: bytes, id: int, peer: str, now_us: int) -> int:
        """Note that a request is sent. Returns when to choose again if no answer comes."""
        pending = self._request(key, id)
        pending.asked, pending.asked_us = peer, now_us
        return now_us + 2 * self.rtt_us(peer)

    def note_answer(self, key: bytes, answer: RightsAnswer, gained: int, now_us: int, *, refill_us: int = 0) -> None:
        """Learn from an answer that brought ``gained`` units.

        ``refill_us`` is how long a whole bucket takes to fill by the missing units; 0 for windows.
        """
        self._measure(answer.peer, max(1, now_us - answer.asked_us))
        pending = self._pending.get(key, {}).get(answer.id)
        if pending is None:
            return
        peer = answer.peer
        pending.have[peer] = answer.have
        pending.unanswered.pop(peer, None)
        if pending.asked == peer and pending.asked_us == answer.asked_us:
            # A copy of an older answer must not end the open request, or requests would multiply.
            pending.asked = None
        if gained and not refill_us and answer.have <= 0:
            pending.exhausted.add(peer)
        elif gained:
            pending.exhausted.discard(peer)
            pending.passed_over_until_us.pop(peer, None)
            pending.empty.pop(peer, None)
        elif answer.is_empty and refill_us:
            # Its capacity may grow without a report: ask again, each time after twice as long.
            empty = pending.empty[peer] = pending.empty.get(peer, -1) + 1
            pause_us = min(REFILL_US << min(empty, 20), max(REFILL_US, refill_us))
            pending.passed_over_until_us[peer] = now_us + pause_us
        elif answer.is_empty:
            pending.exhausted.add(peer)

    def note_request_of(self, peer: str, key: bytes, id: int, have: int) -> None:
        """Learn from a peer's own request, which reports what it has."""
        pending = self._pending.get(key, {}).get(id)
        if pending is None:
            return
        pending.have[peer] = have
        if have > 0:
            pending.exhausted.discard(peer)

    def forget_idle(self, before_us: int) -> None:
        """Drop counters without a request since ``before_us``. Call it now and then; it bounds memory."""
        self._pending = {
            key: requests
            for key, requests in self._pending.items()
            if any(pending.asked_us >= before_us for pending in requests.values())
        }

    def _measure(self, peer: str, round_trip_us: int) -> None:
        known_us = self._rtt_us.get(peer)
        if known_us is None:
            self._rtt_us[peer] = round_trip_us
        elif round_trip_us > known_us:
            self._rtt_us[peer] = (7 * known_us + round_trip_us) // 8
        else:
            # Forget a slow link quickly: each lost request costs two round trips as measured.
            self._rtt_us[peer] = (known_us + round_trip_us) // 2

    def _request(self, key: bytes, id: int) -> _PendingRequest:
        requests = self._pending.setdefault(key, {})
        if id not in requests:
            for old in [known for known in requests if known < id - 1]:
                del requests[old]
            requests[id] = _PendingRequest()
        return requests[id]

    def _passed_over_us(self, pending: _PendingRequest, peer: str) -> int:
        """For how long a peer that did not answer is passed over."""
        return min(PASSED_OVER_US, self.rtt_us(peer) << pending.unanswered.get(peer, 0))

    def _may_have(self, pending: _PendingRequest, peer: str, now_us: int) -> bool:
        return peer not in pending.exhausted and pending.passed_over_until_us.get(peer, 0) <= now_us
