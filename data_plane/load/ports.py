"""What following the load needs from the outside world, named by role."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from tidegate.contract.load import RegionLoad


class PullError(Exception):
    """A server that was asked for a signal gave none; ``reason`` is from a closed set."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ControlPlaneSilentError(Exception):
    """The control plane did not take a report."""


class Pinned(NamedTuple):
    """A report to keep: under which backend and whose name, as bytes."""

    backend: str
    name: str
    body: bytes


class FactorStore(Protocol):
    """Where the nodes of a region share reports, demand and factors. Every method raises ``StoreUnavailableError``."""

    async def pin(self, reports: Sequence[Pinned]) -> None:
        """Keep reports, each in place of the one before by the same name."""
        ...

    async def pinned(self, backend: str) -> Mapping[str, bytes]:
        """The reports on a backend, by name."""
        ...

    async def unpin(self, backend: str, names: Sequence[str]) -> None:
        """Drop reports."""
        ...

    async def tell_demand(self, node: str, body: bytes) -> None:
        """What this node was asked for."""
        ...

    async def demands(self) -> Mapping[str, bytes]:
        """What each node was asked for."""
        ...

    async def drop_demands(self, nodes: Sequence[str]) -> None:
        """Forget nodes that are gone."""
        ...

    async def hold_lease(self) -> bool:
        """Take or keep the right to decide; it is lost when it is not kept for three seconds."""
        ...

    async def release_lease(self) -> None:
        """Give the right to decide up, if it is ours."""
        ...

    async def publish(self, body: bytes) -> bool:
        """Share the factors; ``False``, and nothing done, when somebody else decides by now."""
        ...

    async def read(self) -> bytes | None:
        """The factors as last shared."""
        ...


class LoadServers(Protocol):
    """The servers of the node's own settings, by name."""

    async def ask(self, server: str, query: str) -> float:
        """A query's value now; of several samples the lower median. Raises ``PullError``."""
        ...


class LoadReporting(Protocol):
    """The way to the control plane. Raises ``ControlPlaneSilentError``."""

    async def report(self, load: RegionLoad) -> None:
        """What this region makes of its backends."""
        ...
