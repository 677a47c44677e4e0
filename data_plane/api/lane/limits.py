"""What one connection may cost: sizes in bytes, times in seconds."""

from dataclasses import dataclass

from contract.decision import MAX_BATCH_BODY_BYTES, MAX_BODY_BYTES


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneLimits:
    """Bounds of a connection: its memory stays below ``in_flight_bytes``, plus a head, a body and a read (256 KiB)."""

    head_bytes: int = 64 * 1024
    """Request line and header fields together; beyond it 431. Gateways pass on up to 60 KiB (Envoy)."""
    target_bytes: int = 8 * 1024
    """The request target; beyond it 414."""
    header_fields: int = 100
    check_body_bytes: int = MAX_BODY_BYTES
    batch_body_bytes: int = MAX_BATCH_BODY_BYTES
    authorize_body_bytes: int = MAX_BODY_BYTES
    pipeline_depth: int = 64
    """Requests of one connection that may wait for their answers; beyond it nothing more is read."""
    in_flight_bytes: int = 256 * 1024
    """Bodies of one connection that may wait for their answers; beyond it nothing more is read."""
    keep_alive_s: float = 75.0
    """A connection without a request is closed after this. Longer than gateways keep theirs (nginx: 60 s)."""
    request_s: float = 10.0
    """A request must have arrived whole this long after its first byte; beyond it 408."""
    write_s: float = 10.0
    """A client that doesn't take its answers for this long is dropped."""
    linger_s: float = 1.0
    """How long what still comes in is discarded after a refusal, so that the client gets to read the answer."""
    tick_s: float = 0.5
    """The precision of the times above."""
