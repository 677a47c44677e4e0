"""A backend as a queue: first come, first served, so many units a second; late work is done and worth nothing."""

from collections import deque
from typing import NamedTuple


class Request(NamedTuple):
    """One unit of work."""

    group: int
    client: bytes
    at_s: float


class Done(NamedTuple):
    """What became of a request: ``rtt_s`` from its arrival, and whether its client still waited."""

    request: Request
    rtt_s: float
    in_time: bool


class Backend:
    """Serves requests in their order. ``busy_s`` is the time spent working since the last look."""

    def __init__(self, service_s: float, patience_s: float, queue_s: float) -> None:
        self._service_s = service_s
        self._patience_s = patience_s
        self._queue_s = queue_s
        self._queue: deque[Request] = deque()
        self._credit = 0.0
        self.refused = 0
        self.busy_s = 0.0

    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    def queue_delay_s(self, per_second: float) -> float:
        """How long one that came now would wait."""
        return len(self._queue) / per_second

    def offer(self, request: Request, per_second: float) -> bool:
        """Take a request into the queue, unless that is too long."""
        if len(self._queue) > self._queue_s * per_second:
            self.refused += 1
            return False
        self._queue.append(request)
        return True

    def work(self, now_s: float, step_s: float, per_second: float) -> list[Done]:
        """Work for ``step_s``; what was finished."""
        self._credit += per_second * step_s
        finished = []
        while self._queue and self._credit >= 1.0:
            self._credit -= 1.0
            request = self._queue.popleft()
            waited_s = now_s - request.at_s
            finished.append(Done(request, waited_s + self._service_s, waited_s + self._service_s <= self._patience_s))
        self.busy_s += len(finished) / per_second
        if not self._queue:
            self._credit = min(self._credit, 1.0)  # idle time is not saved up
        return finished
