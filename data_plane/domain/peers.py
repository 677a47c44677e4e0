"""What a region knows of its peers, and how a counter's key leads back to its limit."""

import re
from typing import NamedTuple

_LIMIT_ID = re.compile(rb"\{[^{}]*\}(\d{1,18})(?:[|.]|$)")


class PeerNews(NamedTuple):
    """When a peer's last message was sent, by its clock, and received, by ours; epoch seconds."""

    sent_at_s: float
    received_at_s: float


def limit_of_key(key: bytes) -> int:
    """The id of the limit that a counter belongs to; -1 when the key is none of ours."""
    found = _LIMIT_ID.match(key)
    return int(found[1]) if found else -1
