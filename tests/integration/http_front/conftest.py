"""A real uvicorn in a thread of its own, with a front before a small ASGI app."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop

from tests.unit.http_front.harness import DecisionHandler, DoorPath
from tidegate.contract.decision import MAX_BATCH_BODY_BYTES, MAX_BODY_BYTES
from tidegate.http_front.front import Front
from tidegate.http_front.limits import FrontLimits
from tidegate.http_front.serving import config_of

PATIENCE_S = 10.0


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Stands for FastAPI: answers with the path and the body it got."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    answer = b"elsewhere " + scope["raw_path"] + b" " + body
    headers = [(b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


@dataclass
class RunningFront:
    """``call`` runs a function on the server's loop; ``stop`` asks for a graceful stop and returns at once."""

    port: int
    server: uvicorn.Server
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    tls: ssl.SSLContext | None

    def connect(self) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self.tls.wrap_socket(plain, server_hostname="localhost") if self.tls else plain

    def call(self, function: Callable[[], Any]) -> Any:
        async def on_loop() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(on_loop(), self.loop).result(PATIENCE_S)

    def stop(self) -> None:
        self.server.should_exit = True


FrontFactory = Callable[..., RunningFront]


@pytest.fixture(params=["uvloop", "asyncio"])
def loop_factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    return uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop


@pytest.fixture
def run_front(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> Iterator[FrontFactory]:
    with contextlib.ExitStack() as stack:

        def start(
            handler: DecisionHandler, limits: FrontLimits | None = None, *, certificate: tuple[Path, Path] | None = None
        ) -> RunningFront:
            return stack.enter_context(_running(handler, limits or FrontLimits(), loop_factory, certificate))

        yield start


@contextlib.contextmanager
def _running(
    handler: DecisionHandler,
    limits: FrontLimits,
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
    certificate: tuple[Path, Path] | None,
) -> Iterator[RunningFront]:
    listener = socket.create_server(("127.0.0.1", 0))
    bodies = (MAX_BODY_BYTES, MAX_BATCH_BODY_BYTES, MAX_BODY_BYTES)
    config = config_of(
        application,
        Front(DoorPath(handler, bodies), limits),
        lifespan="off",
        ssl_certfile=certificate and str(certificate[0]),
        ssl_keyfile=certificate and str(certificate[1]),
    )
    server = uvicorn.Server(config)
    ready = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        ready.set()
        await serving

    def run() -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(serve())

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(PATIENCE_S)
    tls = None
    if certificate:
        tls = ssl.create_default_context(cafile=str(certificate[0]))
    try:
        yield RunningFront(listener.getsockname()[1], server, loops[0], thread, tls)
    finally:
        server.should_exit = server.force_exit = True
        thread.join(PATIENCE_S)
        listener.close()
        assert not thread.is_alive()
