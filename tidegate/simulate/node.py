"""A node in virtual time: its view of the config and the store, its questions, and its part in telling."""

from typing import NamedTuple

from data_plane.domain.regions.asking import Asker
from data_plane.domain.regions.marker import View
from data_plane.domain.regions.quotas import Schedule
from data_plane.domain.regions.rules import Rules, Timing
from data_plane.domain.regions.telling import Teller
from data_plane.domain.regions.terms import Terms
from tidegate.simulate.store import Name


class Config(NamedTuple):
    """What the control plane told it. ``shares`` are every region's current ones."""

    revision: int
    schedule: Schedule
    shares: tuple[tuple[str, int], ...]
    generation: int = 0


class SimulatedNode:
    """What dies with the node."""

    def __init__(
        self, number: int, region: str, peers: list[str], config: Config, rules: Rules, timing: Timing
    ) -> None:
        self.number = number
        self.is_alive = True
        self.config = config
        self.run_id = ""
        self.view: View | None = None
        self.terms: tuple[object, Terms] | None = None
        """The last ones made, and what they were made from."""
        self.asker = Asker(peers, rules)
        self.teller = Teller(region, 0, peers, timing, rules, resend_us=2 * timing.tick_us)
        self.holds_lease = False
        self.marks: dict[Name, int] = {}
        """Only with the rule ``marks_in_store`` off."""
        self.told: dict[Name, int] = {}
        """Own units as last told, by counter."""
