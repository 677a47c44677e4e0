"""What a load generator saw of one run."""

import msgspec


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """``requests`` were answered within the ``seconds`` that count; ``all_requests`` with those of a warm-up.

    Latencies are microseconds a request: closed loop from sending it, open loop from the instant it was meant to leave.
    """

    requests: int
    all_requests: int
    seconds: float
    p50_us: float
    p99_us: float
    p999_us: float
    offered_per_s: float | None = None
    late_p99_us: float | None = None
    """How late requests left: the open-loop generator's own shortcoming."""
