"""What is to run, where it listens and where its files are."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.stack.passed_on import PassedOn
from tidegate.stack.ports import LOOPBACK, require_free
from tidegate.stack.progress import StackError

REGION_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
# Ports of a region's second, third, ... node are this much higher, so that the first ones stay 8101, 8102, ...
NODE_PORT_STEP = 10


@dataclass(frozen=True)
class StackOptions:
    """What `tidegate up` was asked for."""

    regions: tuple[str, ...]
    data_dir: Path | None = None
    demo: bool = False
    control_plane_port: int = 8000
    first_node_port: int = 8101
    first_agent_port: int = 8201
    nodes_per_region: int = 1
    rls_port: int | None = None
    """Where the first node speaks Envoy's rate limit protocol as well."""
    admin_token: str | None = None
    settings: PassedOn = field(default_factory=PassedOn)
    """Settings of the control plane and of every node."""


@dataclass(frozen=True)
class NodePlace:
    """A node's or an agent's name, region and port."""

    name: str
    region: str
    port: int

    @property
    def url(self) -> str:
        """Where gateways reach a node, and other regions an agent."""
        return f"http://{LOOPBACK}:{self.port}"


def node_places(options: StackOptions) -> list[NodePlace]:
    """Every node to run: the first of each region, then the second of each, and so on."""
    return [
        NodePlace(f"{region}-{nth + 1}", region, options.first_node_port + nth * NODE_PORT_STEP + index)
        for nth in range(options.nodes_per_region)
        for index, region in enumerate(options.regions)
    ]


def agent_places(options: StackOptions) -> list[NodePlace]:
    """The agent of each region."""
    return [
        NodePlace(f"{region}-agent", region, options.first_agent_port + index)
        for index, region in enumerate(options.regions)
    ]


def require_sound(options: StackOptions) -> None:
    """Raise ``StackError`` when the options contradict each other or a port is taken."""
    if not options.regions:
        raise StackError("--regions names no region")
    for region in options.regions:
        if not REGION_NAME.fullmatch(region):
            raise StackError(f"--regions: {region!r} is not a name of a-z, 0-9 and -, 32 characters at most")
    if len(set(options.regions)) != len(options.regions):
        raise StackError("--regions names a region twice")
    if len(options.regions) > NODE_PORT_STEP:
        raise StackError(f"--regions: at most {NODE_PORT_STEP} regions on one machine")
    places = node_places(options)
    wanted = [("control plane", options.control_plane_port, "--control-plane-port")]
    wanted += [(f"node {place.name}", place.port, "--first-node-port") for place in places]
    wanted += [(f"agent {place.name}", place.port, "--first-agent-port") for place in agent_places(options)]
    wanted += [("rate limit service", options.rls_port, "--rls-port")] if options.rls_port is not None else []
    seen: dict[int, str] = {}
    for name, port, option in wanted:
        if port in seen:
            raise StackError(f"the {seen[port]} and the {name} would both listen on port {port}: change {option}")
        if port > 65535:
            raise StackError(f"the {name} would listen on port {port}, which is no port: lower {option}")
        seen[port] = name
        require_free(port, wanted_by=name, option=option)


@dataclass(frozen=True)
class DataDir:
    """Where everything that the stack writes is."""

    root: Path

    @property
    def logs(self) -> Path:
        """One file a process."""
        return self.root / "logs"

    @property
    def lock(self) -> Path:
        """Held (flock) by the `tidegate up` that uses the directory."""
        return self.root / "lock"

    @property
    def secrets(self) -> Path:
        """Passwords and keys of the parts, mode 0600."""
        return self.root / "secrets.json"

    @property
    def signing_key(self) -> Path:
        """The private key (hex) with which the control plane signs revisions, mode 0600."""
        return self.root / "signing-key"

    @property
    def admin_token(self) -> Path:
        """The first admin token, mode 0600."""
        return self.root / "admin-token"

    @property
    def postgres(self) -> Path:
        """Postgres's own."""
        return self.root / "postgres"

    def store(self, region: str) -> Path:
        """A region's Valkey's own."""
        return self.root / f"valkey-{region}"

    def snapshot(self, node: str) -> Path:
        """The signed config that a node starts from when the control plane is away."""
        return self.root / "snapshots" / f"{node}.snapshot"

    def log(self, name: str) -> Path:
        """The log file of the process ``name``."""
        return self.logs / f"{name.replace(' ', '-').lower()}.log"
