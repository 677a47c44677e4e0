"""What one connection, and all of them together, may cost: sizes in bytes, times in seconds."""

import resource
from dataclasses import dataclass

_KEPT_FOR_OTHERS = 192
"""Descriptors that are no client's: files, the store, the database, peers, the health port, one being refused."""
_MOST_CONNECTIONS = 16_384


def use_all_descriptors() -> None:
    """Raise this process's soft limit of descriptors as far as the hard one lets it; call before a front is made."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_CONNECTIONS + _KEPT_FOR_OTHERS
    if soft not in {resource.RLIM_INFINITY, hard} and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def connections_that_fit() -> int:
    """How many connections this process can have open at once, by its limit of descriptors."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return min(_MOST_CONNECTIONS, max(16, descriptors // 2, descriptors - _KEPT_FOR_OTHERS))


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontLimits:
    """Bounds of a port. A connection holds at most ``in_flight_bytes``, a head, a body and a read (256 KiB)."""

    head_bytes: int = 64 * 1024
    """Request line and header fields together; beyond it 431. Gateways pass on up to 60 KiB (Envoy)."""
    target_bytes: int = 8 * 1024
    """The request target; beyond it 414."""
    header_fields: int = 100
    body_bytes: int = 1024 * 1024
    """The body of a request that the application answers; routes of the fast path have their own bounds."""
    app_unread_bytes: int = 64 * 1024
    """What the application has not read yet of a body; beyond it nothing more is taken from the client."""
    pipeline_depth: int = 64
    """Requests of one connection that may wait for their answers; beyond it nothing more is read."""
    in_flight_bytes: int = 256 * 1024
    """Bodies of one connection that may wait for their answers; beyond it nothing more is read."""
    connections: int = 0
    """How many at once; 0 for as many as the process has descriptors for. Beyond it those that wait go, then 503."""
    unfinished_bytes: int = 64 * 1024 * 1024
    """Parts of requests that all connections together may hold; beyond it those that would end soonest are ended."""
    keep_alive_s: float = 75.0
    """A connection without a request is closed after this. Longer than gateways keep theirs (nginx: 60 s)."""
    request_s: float = 10.0
    """A request must have arrived whole this long after its first byte; beyond it 408."""
    body_bytes_a_s: int = 32 * 1024
    """A body for the application may take longer than ``request_s`` while it comes at least this fast."""
    write_s: float = 10.0
    """A client that doesn't take its answers for this long is dropped."""
    linger_s: float = 1.0
    """How long what still comes in is discarded after a refusal, so that the client gets to read the answer."""
    tick_s: float = 0.5
    """The precision of the times above."""
