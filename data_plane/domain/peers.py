"""What a region knows of its peers."""

from typing import NamedTuple


class PeerNews(NamedTuple):
    """When a peer's last message was sent, by its clock, and received, by ours; epoch seconds."""

    sent_at_s: float
    received_at_s: float
