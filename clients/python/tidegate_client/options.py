"""How a client of Tidegate behaves."""

import ssl
from dataclasses import dataclass
from typing import Literal, get_args

FailPolicy = Literal["open", "closed", "raise"]
MOST_LEASE_UNITS = 10_000_000


class UnavailableError(Exception):
    """No node answered in time, and the policy is ``raise``."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """``urls``: one or more nodes of one region, tried in turn. ``token``: the gateway token (``tgg_...``).

    ``timeout_s`` bounds every check, come what may; then ``on_failure`` decides. ``leases``: hold small allotments and
    decide here; ``lease_s`` is how long one may be spent. ``remember_denials_s``: who was just denied is denied again
    without asking, for as long as the answer said and at most so long (0: always ask). ``tls``: for ``https`` nodes
    with a CA or a client certificate of your own.
    """

    urls: tuple[str, ...]
    token: str | None = None
    timeout_s: float = 0.25
    on_failure: FailPolicy = "open"
    max_batch: int = 500
    leases: bool = False
    lease_s: float = 1.0
    lease_after_per_s: float = 5.0
    max_lease_units: int = MOST_LEASE_UNITS
    remember_denials_s: float = 1.0
    max_accounts: int = 10_000
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot work, by name."""
        is_text = isinstance(self.urls, str)  # one URL: its letters would be nodes
        if not self.urls or is_text:
            raise ValueError("urls: name at least one node, in a tuple or list")
        if not self.timeout_s > 0:
            raise ValueError("timeout_s: must be above 0")
        if self.on_failure not in get_args(FailPolicy):
            raise ValueError("on_failure: open, closed or raise")
        if not 1 <= self.max_batch <= 1_000:
            raise ValueError("max_batch: from 1 to 1000")
        if not 0 < self.lease_s <= 10:
            raise ValueError("lease_s: above 0, at most 10")
        if not self.lease_after_per_s >= 0:
            raise ValueError("lease_after_per_s: must not be negative")
        if not 1 <= self.max_lease_units <= MOST_LEASE_UNITS:
            raise ValueError(f"max_lease_units: from 1 to {MOST_LEASE_UNITS}")
        if not self.remember_denials_s >= 0:
            raise ValueError("remember_denials_s: must not be negative")
        if self.max_accounts < 1:
            raise ValueError("max_accounts: must be above 0")
