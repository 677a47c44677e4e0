"""How a node reaches its region's Redis or Valkey, and how long it waits for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_plane.store.redis.credentials import Guarded

Shape = Literal["standalone", "sentinel", "cluster"]


@dataclass(frozen=True, kw_only=True)
class RedisSettings:
    """Where the store is and the bounds under which it is used; the defaults suit a store in the same zone.

    ``url`` is ``redis://``, ``rediss://`` or ``unix://`` with user, password and database as in redis-py. With
    ``shape="sentinel"`` its address is ignored (the sentinels name the master) and with ``"cluster"`` it is one of the
    seeds, beside ``cluster_nodes``.
    """

    url: str = "redis://127.0.0.1:6379/0"
    shape: Shape = "standalone"
    sentinels: tuple[tuple[str, int], ...] = ()
    master_name: str = ""
    sentinel_username: str | None = None
    sentinel_password: str | None = None
    cluster_nodes: tuple[tuple[str, int], ...] = ()
    credentials: Guarded | None = None
    """Asked at each login instead of what the URL says, and every few seconds whether it has new ones."""
    renew_credentials_s: float = 5.0

    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    tls_check_hostname: bool = True

    deadline_ms: float = 25.0
    """A decision that is not answered by then is given up.

    A healthy server on a busy host of two cores answered within 0.2 ms at the median and 14 ms at p99 (its process was
    descheduled): below that, load elsewhere on the host would look like a dead store.
    """
    connect_timeout_ms: float = 1_000.0
    stall_reconnect_ms: float = 1_000.0
    """A connection whose oldest call is older than this is dropped: its late replies are not worth the wait."""

    max_batch_decisions: int = 128
    max_batch_limits: int = 384
    max_in_flight: int = 2
    worth_a_second_call: int = 8
    """While a call is in flight, another one leaves only with this many decisions: fewer wait for the reply and ride
    together. A call costs the node and the server as much as several decisions."""
    max_pending: int = 16_384
    max_queue_ms: float = 500.0
    """How long a decision may wait for its turn while the server answers in time; then the deadline begins."""

    circuit_window_ms: float = 100.0
    circuit_min_failures: int = 5
    backoff_base_ms: float = 20.0
    backoff_cap_ms: float = 1_000.0

    def __post_init__(self) -> None:
        """Refuse what cannot work, by name."""
        if self.shape == "sentinel" and not (self.sentinels and self.master_name):
            raise ValueError("shape 'sentinel' needs sentinels and master_name")
        for name in (
            "deadline_ms",
            "connect_timeout_ms",
            "max_batch_decisions",
            "max_in_flight",
            "worth_a_second_call",
            "max_pending",
        ):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0")
