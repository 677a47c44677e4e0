"""Gateways for tests: the real programs, started with the configuration files that docs/gateways/ shows to users."""

import re
import shutil
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.ports import LOOPBACK, free_ports

EXAMPLES = Path(__file__).parents[1] / "docs" / "gateways"
RATE_LIMIT_HEADERS = (
    "ratelimit",
    "ratelimit-policy",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
)
GATEWAY_PORT, NODE_PORT, RLS_PORT, UPSTREAM_PORT = 8080, 8101, 8181, 9000
"""What the examples say; a test puts free ports in their place."""
SECOND_PORTS = {NODE_PORT: 8111, RLS_PORT: 8182}
"""Of the second node of the option two-nodes."""
BUDGET = re.compile(r"\b(250ms|0\.25s)\b")
"""How long the examples let a gateway wait for the node."""
BUDGET_S = 1
"""What tests put in its place: they are about what a gateway does, on a machine that may be busy with others."""
START_TIMEOUT_S = 30.0


class GatewayServer(ABC):
    """One gateway in ``directory``: listens on ``port``, asks the node at ``node_port``, forwards to ``upstream_port``.

    With the option ``two-nodes`` there is a second node at ``second_port``; unless that is given, nothing listens.
    ``options`` are switched on in the example as a user would: by taking ``# option <name>: `` away.
    """

    name: ClassVar[str]
    dialect: ClassVar[str]
    folder: ClassVar[str | None] = None
    """Of its example, where it is not its name."""
    asks_rls: ClassVar[bool] = False
    """Whether it asks the node over gRPC; then refusals (401, 403) reach end clients as 429."""
    closed_statuses: ClassVar[tuple[int, ...]] = (503,)
    """What end clients get while the node is away and the example fails closed."""
    asks_at_most: ClassVar[int] = 1
    """How often it asks where nodes break off after they have counted."""
    manners: ClassVar[Mapping[str, str]] = {}
    """What to say of a test of the suite in the table of gateways, instead of yes."""
    own_ports: ClassVar[tuple[int, ...]] = ()
    """Further ports in the example that the gateway listens on."""

    def __init__(
        self, directory: Path, *, node_port: int, upstream_port: int, options: Sequence[str] = (), token: str = "",
        second_port: int | None = None,
    ) -> None:  # fmt: skip
        self.directory = directory
        self.port, nowhere, *others = free_ports(2 + len(self.own_ports))
        self.url = f"http://{LOOPBACK}:{self.port}"
        asked = RLS_PORT if self.asks_rls else NODE_PORT
        self._ports = {GATEWAY_PORT: self.port, asked: node_port, UPSTREAM_PORT: upstream_port}
        self._ports[SECOND_PORTS[asked]] = second_port or nowhere
        self._ports |= dict(zip(self.own_ports, others, strict=True))
        self._options = (*options, "token") if token else tuple(options)
        self._token = token
        directory.mkdir(parents=True, exist_ok=True)
        env = ({"TIDEGATE_GATEWAY_TOKEN": token} if token else {}) | dict(self.environment())
        log_path = directory / f"{self.name}.log"
        self.child = Child(self.name, self.command(), log_path=log_path, env=env, directory=directory)

    @abstractmethod
    def command(self) -> list[str | Path]:
        """Put the example into ``directory`` and say how to start the program there."""

    def environment(self) -> Mapping[str, str]:
        """Further environment variables."""
        return {}

    def example(self, file: str) -> Path:
        """A file of the example in ``directory``, with the test's ports, options and token."""
        text = (EXAMPLES / (self.folder or self.name) / file).read_text()
        for option in self._options:
            text = text.replace(f"# option {option}: ", "")
        for shown, real in self._ports.items():
            text = re.sub(rf"\b{shown}\b", str(real), text)
        text = BUDGET.sub(f"{BUDGET_S}s", text)
        copy = self.directory / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(re.sub(r"\bGATEWAY_TOKEN\b", self._token, text))
        return copy

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.child.start()
        wait_until_ready(self.child, self.is_ready, timeout_s=START_TIMEOUT_S)

    def is_ready(self) -> bool:
        """Whether it has its configuration and listens."""
        try:
            socket.create_connection((LOOPBACK, self.port), timeout=1).close()
        except OSError:
            return False
        return True


def wheel_program(name: str) -> Path:
    """A program that a wheel put beside Python."""
    return Path(sys.executable).parent / name


def debian_program(name: str) -> Path:
    """A program of Debian's; skips the test with a clear word where it is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"needs {name} (Debian package {name})")
    return Path(found)
