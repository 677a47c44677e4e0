"""The processes of a region, a node and an agent: each an ASGI application behind the front of its port."""

import asyncio
import contextlib
import fcntl
import gc
import socket
import ssl
from collections.abc import AsyncIterator, Coroutine, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

import structlog
import uvicorn
import uvloop
from fastapi import FastAPI

from data_plane.agent import Agent
from data_plane.http.app import create_agent_app, create_app
from data_plane.http.decision_handler import DecisionFastPath
from data_plane.http.health import HealthServer, listen_or_exit
from data_plane.http.peer_handler import PeerFastPath
from data_plane.http.render import Renderer
from data_plane.node import Node
from data_plane.process import cancelled
from data_plane.rls.mapping import RlsMapping
from data_plane.rls.server import serving_rls
from data_plane.rls.service import RateLimitService, handler_of
from data_plane.settings import AgentSettings, Settings
from tidegate.http_front.exchange import FastPath
from tidegate.http_front.front import Front
from tidegate.http_front.limits import FrontLimits, use_all_descriptors
from tidegate.http_front.serving import config_of

log = structlog.get_logger()
LIMITS = FrontLimits(body_bytes=128 * 1024 * 1024)
"""Bounds of the front; routes have narrower bounds of their own and count what exceeds them."""


def build_app(node: Node) -> FastAPI:
    """The ASGI application of a node; serves every route, for any ASGI server."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with node.running(), _serving_rls(node):
            yield

    return create_app(node.handler, node.hold_handler, node.load_handler, node.denial_reports, node.me, node, lifespan)


def build_agent_app(agent: Agent) -> FastAPI:
    """The ASGI application of an agent, without the messages of other regions."""

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with agent.running():
            yield

    return create_agent_app(agent, lifespan)


@contextlib.asynccontextmanager
async def _serving_rls(node: Node) -> AsyncIterator[None]:
    """Envoy's rate limit service beside HTTP, where a port is set for it."""
    settings = node.settings
    if settings.rls_port is None:
        yield
        return
    file = settings.rls_mapping_file
    service = RateLimitService(
        node.decider, Renderer(settings.region, settings.reset_format),
        RlsMapping() if file is None else RlsMapping.from_file(file), settings.trust, settings.node,
    )  # fmt: skip
    handler = handler_of(service, lambda: node.ready()[0])
    async with serving_rls(
        handler, settings.host, settings.rls_port, settings.callers_tls(), is_draining=lambda: node.draining
    ):
        yield


class SeveralWorkersError(Exception):
    """An ASGI server started several processes for one node."""


def app_from_environment() -> FastAPI:
    """For other ASGI servers, with one worker: ``uvicorn --factory data_plane.main:app_from_environment``.

    Further workers refuse to start (``SeveralWorkersError``): they would be one node by name and snapshot file, and
    each scrape would show the metrics of another.
    """
    settings = Settings()
    alone = _hold_alone(settings.snapshot_file)
    app = build_app(Node(settings))
    app.state.alone = alone  # for as long as the process lives
    return app


def _hold_alone(snapshot_file: Path) -> IO[bytes]:
    snapshot_file.parent.mkdir(parents=True, exist_ok=True)
    held = snapshot_file.with_name(snapshot_file.name + ".lock").open("wb")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        held.close()
        raise SeveralWorkersError(
            f"another process is the node of {snapshot_file}: a node is one process. Use one worker; start further"
            " nodes, each with a TIDEGATE_NODE, port and TIDEGATE_SNAPSHOT_FILE of its own"
        ) from None
    return held


class RegionServer(uvicorn.Server):
    """uvicorn with a drain: once asked to stop, it is no longer ready and still answers for ``drain_s`` seconds.

    Meanwhile load balancers learn by ``/readyz``, and clients that keep connections by ``Connection: close``, to use
    other processes. Then it stops listening. A second signal stops it at once.
    """

    def __init__(self, config: uvicorn.Config, process: Node | Agent, front: Front) -> None:
        super().__init__(config)
        self._process = process
        self._front = front
        self._drain_s = process.settings.drain_s
        self._health = HealthServer(process)
        self._health_task: asyncio.Task[None] | None = None
        self._renewal: Sequence[asyncio.Task[None]] = ()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked_to_exit = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to serve. The loop is kept, as signals arrive outside of it; the health port opens last."""
        self._loop = asyncio.get_running_loop()
        settings = self._process.settings
        port = settings.health_port
        health_socket = None if port is None else listen_or_exit(settings.host, port, "health_port_not_taken")
        if isinstance(settings, Settings) and settings.rls_port:
            listen_or_exit(settings.host, settings.rls_port, "rls_port_not_taken").close()
        await super().startup(sockets)
        files = settings.callers_tls()
        if files is not None and self.config.ssl is not None:
            self._renewal = [asyncio.create_task(files.keep_loaded(self.config.ssl))]
        if health_socket is not None and self.started:
            self._health_task = asyncio.create_task(self._health.serve([health_socket]))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down as uvicorn does; the health port closes last."""
        await super().shutdown(sockets)
        await cancelled(self._renewal)
        if self._health_task is not None:
            self._health.should_exit = True
            await self._health_task

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain at the first SIGTERM or SIGINT; stop at the second."""
        if self._loop is None or not self.started or self._process.draining or not self._drain_s:
            self._exit(sig, frame)
        else:
            self._process.draining = True
            self._loop.call_soon_threadsafe(self._drain, self._loop, sig)

    async def main_loop(self) -> None:
        """Wait until asked to stop. uvicorn's loop wakes ten times a second to set dates, which the front sets."""
        await self._asked_to_exit.wait()

    def _exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._asked_to_exit.set)

    def _drain(self, loop: asyncio.AbstractEventLoop, sig: int) -> None:
        log.info("draining", for_s=self._drain_s)
        self._front.drain()
        loop.call_later(self._drain_s, self._exit, sig, None)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; what is in flight is finished first."""
    # A decision leaves no cycles behind. The collector's look at everything else is to be rare; Node keeps the
    # configuration out of its sight.
    gc.set_threshold(50_000, 50, 1_000)
    _run(_serve_node(settings))


def run_agent(settings: AgentSettings) -> None:
    """Serve until SIGTERM or SIGINT; what is in flight is finished first, and leases are handed over."""
    _run(_serve_agent(settings))


def _run(server: Coroutine[Any, Any, None]) -> None:
    use_all_descriptors()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server)


async def _serve_node(settings: Settings) -> None:
    node = Node(settings)
    await _serve(node, build_app(node), DecisionFastPath(node.handler))


async def _serve_agent(settings: AgentSettings) -> None:
    agent = Agent(settings)
    await _serve(agent, build_agent_app(agent), PeerFastPath(agent.peer_handler))


async def _serve(process: Node | Agent, app: FastAPI, fast_path: FastPath) -> None:
    settings, front = process.settings, Front(fast_path, LIMITS)
    config = config_of(
        app, front, host=settings.host, port=settings.port, lifespan="on", timeout_graceful_shutdown=5,
        ssl_certfile=settings.tls_cert_file, ssl_keyfile=settings.tls_key_file,
        ssl_ca_certs=settings.tls_client_ca_file,
        ssl_cert_reqs=ssl.CERT_REQUIRED if settings.tls_client_ca_file else ssl.CERT_NONE,
    )  # fmt: skip
    await RegionServer(config, process, front).serve()
