"""What the load room needs of the store, of servers and of the control plane."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from tidegate.contract.load import RegionLoad


class PullError(Exception):
    """A server gave no signal; ``reason`` is from a closed set."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ControlPlaneUnavailableError(Exception):
    """The control plane did not take a report."""


class NamedReport(NamedTuple):
    """An encoded report on a backend, and the name that it is stored under."""

    backend: str
    name: str
    body: bytes


class FactorStore(Protocol):
    """Reports, demand and factors that a region shares. Every method raises ``StoreUnavailableError``."""

    async def store_reports(self, reports: Sequence[NamedReport]) -> None:
        """Store reports; each replaces the one before of the same name."""
        ...

    async def reports_on(self, backend: str) -> Mapping[str, bytes]:
        """The reports on a backend, by name."""
        ...

    async def drop_reports(self, backend: str, names: Sequence[str]) -> None:
        """Drop reports."""
        ...

    async def write_demand(self, node: str, body: bytes) -> None:
        """Write a node's demand."""
        ...

    async def demands(self) -> Mapping[str, bytes]:
        """The demand of each node."""
        ...

    async def drop_demands(self, nodes: Sequence[str]) -> None:
        """Drop the demand of nodes that are gone."""
        ...

    async def hold_lease(self) -> bool:
        """Take or renew the lease, which lasts three seconds. Returns whether this agent holds it."""
        ...

    async def release_lease(self) -> None:
        """Release the lease, if this agent holds it."""
        ...

    async def publish(self, body: bytes) -> bool:
        """Publish factors. Returns whether this agent still holds the lease; else nothing is done."""
        ...

    async def read(self) -> bytes | None:
        """The factors published last."""
        ...


class LoadServers(Protocol):
    """The servers of the agent's settings, by name."""

    async def ask(self, server: str, query: str) -> float:
        """The value of a query; the lower median of several samples. Raises ``PullError``."""
        ...


class LoadReporting(Protocol):
    """The way to the control plane. Raises ``ControlPlaneUnavailableError``."""

    async def report(self, load: RegionLoad) -> None:
        """Send the loads of this region's backends."""
        ...
