"""A server under test: how it is started, where it answers, how it is known to answer rightly."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.ports import LOOPBACK, free_ports
from tools.bench.errors import BenchError
from tools.bench.machine import bound_to, favour
from tools.bench.place import READY_TIMEOUT_S, Place


@dataclass(frozen=True)
class Launch:
    """A command, what it finds in its environment, and on which port it will answer."""

    command: list[str | Path]
    port: int
    env: Mapping[str, str]


@dataclass(frozen=True)
class Variant:
    """``path`` takes one check, ``batch_path`` many. ``plans`` are those of the workload that it can tell apart.

    ``subrequests`` says that it is asked as gateways do (forward-auth, ``path`` in front of the original one), and
    ``denies`` that nearly all of its answers are to be 429.
    """

    name: str
    title: str
    launch: Callable[[Place, int], Launch]
    path: str = "/check"
    batch_path: str | None = None
    plans: tuple[str, ...] = ("one",)
    is_tidegate: bool = False
    subrequests: bool = False
    denies: bool = False
    decides_alone: bool = False
    """Its store is away."""
    beside: Callable[[Place], AbstractContextManager[None]] | None = None
    """What else has to run while it does, on the other core."""

    @property
    def is_usual_node(self) -> bool:
        """A node of ours that answers checks and allows them, with nobody else taking from its counts."""
        return self.is_tidegate and self.beside is None and not (self.subrequests or self.denies)

    @property
    def ready_path(self) -> str:
        """Where a check is answered once it is ready."""
        return "/v1/check" if self.is_tidegate else self.path


@dataclass(frozen=True)
class Server:
    """A running variant."""

    variant: Variant
    port: int
    pid: int

    @property
    def url(self) -> str:
        """Its root."""
        return f"http://{LOOPBACK}:{self.port}"


def python_module(module: str) -> list[str | Path]:
    """The command that runs a module of ours."""
    return [sys.executable, "-m", module]


@contextlib.contextmanager
def running(variant: Variant, place: Place) -> Iterator[Server]:
    """Start a variant alone on its core; the store is empty."""
    with variant.beside(place) if variant.beside is not None else contextlib.nullcontext():
        yield from _running(variant, place)


def _running(variant: Variant, place: Place) -> Iterator[Server]:
    launch = variant.launch(place, free_ports(1)[0])
    child = Child(variant.name, launch.command, env=launch.env, log_path=place.directory / f"{variant.name}.log")
    with bound_to(place.cores.server):
        child.start()
        favour(child.pid)
    try:
        server = Server(variant, launch.port, child.pid)
        body = place.bodies["one", 1].read_bytes().partition(b"\n")[0]
        wait_until_ready(child, lambda: _answers(server, body), timeout_s=READY_TIMEOUT_S)
        yield server
        if child.exit_code() is not None:
            raise BenchError(f"{variant.name} ended while it was measured:\n{child.log_tail()}")
    finally:
        child.stop()


def _answers(server: Server, body: bytes) -> bool:
    try:
        response = httpx.post(
            server.url + server.variant.ready_path, content=body, timeout=2.0, trust_env=False,
            headers={"content-type": "application/json"},
        )  # fmt: skip
    except httpx.HTTPError:
        return False
    # A node that is not connected to its store yet answers too, but by itself.
    return response.status_code == 200 and response.json().get("degraded", False) == server.variant.decides_alone
