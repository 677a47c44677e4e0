"""The node's clock."""

import time


def epoch_us() -> int:
    """Microseconds since the epoch, by the wall clock of this machine."""
    return time.time_ns() // 1_000


class SystemClock:
    """The wall clock of this machine."""

    def now_us(self) -> int:
        """Microseconds since the epoch."""
        return time.time_ns() // 1_000
