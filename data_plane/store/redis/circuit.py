"""When to stop asking a server, and how it is found again without waiting for a client's check.

Events are script calls, not decisions: one slow call that carries a hundred decisions is one failure.
"""

import asyncio
import logging
from collections.abc import Callable

from data_plane.store.packing import encode_rule
from data_plane.store.ports import CallbackCheck, CounterCheck
from data_plane.store.redis.status import Reason, State
from tidegate.contract.limits import LimitRule

log = logging.getLogger(__name__)


class Circuit:
    """Opens when at least ``min_failures`` events and half of those in the window failed. A probe closes it.

    With little traffic one window never holds that many failures. So it also opens when that many came in a row, over
    more than a window.

    The window slides in two halves, so it looks back between half and the whole of ``window_s``.
    """

    def __init__(self, *, window_s: float, min_failures: int, backoff: "Backoff") -> None:
        self._half_s = window_s / 2
        self._min_failures = min_failures
        self._backoff = backoff
        self._half_started = 0.0
        self._now = [0, 0]
        self._before = [0, 0]
        self._in_a_row = 0
        self._row_began = 0.0
        self._retry_at = 0.0
        self.state: State = "closed"
        self.opened = 0

    @property
    def retry_at(self) -> float:
        """When an open circuit lets a probe through."""
        return self._retry_at

    def admits_probe(self, now: float) -> bool:
        """Whether a decision may go as the probe of a circuit that is not closed; true once per wait."""
        if self.state != "open" or now < self._retry_at:
            return False
        self.state = "half_open"
        return True

    def succeeded(self, now: float, answers: int = 1) -> None:
        """Answers came in time. Only a probe's answer closes the circuit; answers of earlier calls do not."""
        if self.state == "half_open":
            self._close()
        elif self.state == "closed":
            self._slide(now)
            self._now[0] += answers
            self._in_a_row = 0

    def failed(self, now: float) -> None:
        """No answer, or an error that means that the store cannot decide."""
        if self.state == "half_open":
            self.trip(now)
        elif self.state == "closed":
            self._slide(now)
            self._now[1] += 1
            failures = self._now[1] + self._before[1]
            if not self._in_a_row:
                self._row_began = now
            self._in_a_row += 1
            most = failures >= self._min_failures and failures >= self._now[0] + self._before[0]
            all_for_long = self._in_a_row >= self._min_failures and now - self._row_began > 2 * self._half_s
            if most or all_for_long:
                self.trip(now)

    def trip(self, now: float) -> None:
        """Open at once: the store is known to be unusable (its connection cannot be made)."""
        if self.state == "closed":
            self.opened += 1
        self.state = "open"
        self._retry_at = now + self._backoff.next_s()

    def reachable(self, now: float) -> None:
        """A new connection was made: the next decision may probe at once."""
        if self.state == "half_open":
            self.state = "open"
        self._retry_at = min(self._retry_at, now)

    def _close(self) -> None:
        self.state = "closed"
        self._backoff.reset()
        self._in_a_row = 0
        self._now = [0, 0]
        self._before = [0, 0]

    def _slide(self, now: float) -> None:
        age = now - self._half_started
        if age < self._half_s:
            return
        self._before = self._now if age < 2 * self._half_s else [0, 0]
        self._now = [0, 0]
        self._half_started = now


class Backoff:
    """Waits that grow twofold with every attempt, with full jitter: ``uniform(0, min(cap, base x 2^n))``.

    Full jitter is what spreads a herd best: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    def __init__(self, *, base_s: float, cap_s: float, random: Callable[[], float]) -> None:
        self._base_s = base_s
        self._cap_s = cap_s
        self._random = random
        self._attempts = 0

    def next_s(self) -> float:
        """How long to wait before the next attempt, in seconds."""
        ceiling: float = min(self._cap_s, self._base_s * 2 ** min(self._attempts, 32))
        self._attempts += 1
        return self._random() * ceiling

    def reset(self) -> None:
        """Start with small waits again, after a success."""
        self._attempts = 0


PROBE_KEY = b"tg:probe"
_PROBE = encode_rule(LimitRule(id=0, name="probe", algorithm="fixed_window", limit=2**40, window_us=1_000_000))
LOG_EVERY_S = 10.0
"""A store that comes and goes is logged no more often than this."""


def probe_check(key: bytes) -> CounterCheck:
    """The probe's decision. It writes, as those of clients do: a full store or a replica fails it too."""
    return CallbackCheck((key,), (_PROBE,), 1)


class Prober:
    """Probes an open circuit as soon as its wait is over. ``submit`` says whether the probe could be sent."""

    def __init__(self, circuit: Circuit, submit: Callable[[], bool], again_s: float) -> None:
        self._circuit = circuit
        self._submit = submit
        self._again_s = again_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """Probe at the right time: the circuit opened, or there is a new connection."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(max(self._circuit.retry_at, self._loop.time()), self._probe)

    def stop(self) -> None:
        """Stop probing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _probe(self) -> None:
        self._timer = None
        # half open: a decision is the probe, and its outcome closes the circuit or wakes the prober
        if self._circuit.state == "open" and not self._submit():
            self._timer = self._loop.call_later(self._again_s, self._probe)


class Trouble:
    """Why a server was given up; ``None`` while it decides. Logs the beginning and the end."""

    def __init__(self) -> None:
        self.reason: Reason | None = None
        self._began_at = 0.0
        self._logged_at: float | None = None
        self._is_logged = False

    def began(self, reason: Reason, now: float) -> None:
        """The circuit is open, because of ``reason``."""
        if self.reason is None:
            self._began_at = now
            self._is_logged = self._logged_at is None or now - self._logged_at >= LOG_EVERY_S
            if self._is_logged:
                self._logged_at = now
                log.warning("the store does not decide (%s): decisions are made without it", reason)
        if self.reason is None or reason != "connection_lost":  # we may have dropped it for an earlier reason
            self.reason = reason

    def ended(self, now: float) -> None:
        """The server decides again."""
        if self.reason is not None:
            self.reason = None
            if self._is_logged:
                log.warning("the store decides again, after %.1f s", now - self._began_at)
