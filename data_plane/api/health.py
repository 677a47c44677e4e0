"""A port of its own for probes and scrapers, in plain HTTP: they have no client certificate where callers need one."""

import contextlib
import socket
import sys
from collections.abc import Iterator

import structlog
import uvicorn
from fastapi import FastAPI

from data_plane.api.operation_routes import Operations, health_routes

log = structlog.get_logger()


class HealthServer(uvicorn.Server):
    """``/healthz``, ``/readyz`` and ``/metrics`` beside the node's own server, which takes the signals."""

    def __init__(self, operations: Operations, host: str, port: int) -> None:
        app = FastAPI(title="Tidegate node's health", openapi_url=None, docs_url=None, redoc_url=None)
        app.include_router(health_routes(operations))
        super().__init__(uvicorn.Config(
            app, http="httptools", ws="none", lifespan="off", access_log=False, log_config=None, server_header=False,
            proxy_headers=False, timeout_graceful_shutdown=1,
        ))  # fmt: skip
        self._address = (host, port)

    def bind(self) -> socket.socket:
        """The port, taken. Ends the process where that cannot be, as uvicorn does for the other port."""
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        try:
            return socket.create_server(self._address, family=family, backlog=128)
        except OSError as error:
            log.error("health_port_not_taken", port=self._address[1], error=str(error))
            sys.exit(1)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them to the node's server."""
        yield
