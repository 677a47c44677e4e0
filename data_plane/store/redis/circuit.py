"""When to stop waiting for a store and when to ask it again. Pure: time is an argument, randomness is handed in.

Events are script calls, not decisions: one slow call that carries a hundred decisions is one failure.
"""

from collections.abc import Callable
from typing import Literal

State = Literal["closed", "open", "half_open"]


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
        """Start small again: it worked."""
        self._attempts = 0


class Circuit:
    """Opens when at least ``min_failures`` events and half of those in the window failed. A probe closes it.

    Where little is asked, so many failures never are in one window: it opens as well when so many came in a row, over
    more than a window.

    The window slides in two halves, so it looks back between half and the whole of ``window_s``.
    """

    def __init__(self, *, window_s: float, min_failures: int, backoff: Backoff) -> None:
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
        """Whether this one may go as the probe of a circuit that is not closed; true once per wait."""
        if self.state != "open" or now < self._retry_at:
            return False
        self.state = "half_open"
        return True

    def succeeded(self, now: float) -> None:
        """An answer came in time. Only a probe's closes the circuit: an open one hears of late news."""
        if self.state == "half_open":
            self._close()
        elif self.state == "closed":
            self._slide(now)
            self._now[0] += 1
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
        """A new connection stands: the next decision may probe without waiting any longer."""
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
