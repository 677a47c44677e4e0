"""What the exchange of counts has done since the process began."""

from collections import Counter


class ReplicationTally:
    """Counts since the start of the process."""

    def __init__(self) -> None:
        self.sent_cells = 0
        self.messages = 0
        self.failures: Counter[str] = Counter()
        self.handed_back_cells = 0
        self.sweeps = 0
        self.over = 0
        """Merges that found a counter over its limit."""
        self.most_over = 0
        """The most units over that any of them found."""
        self.implausible = 0
        self.repeated = 0
        """Messages that said nothing of now, because they had been sent before: replays, or doubled on the way."""
        self.silences: Counter[str] = Counter()
        """Times that a peer became unreachable, and its share was kept for it from then on."""
