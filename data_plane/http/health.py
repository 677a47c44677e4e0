"""A plain HTTP port for probes and scrapers, for nodes whose callers need client certificates."""

import contextlib
import socket
import sys
from collections.abc import Iterator

import structlog
import uvicorn
from fastapi import FastAPI

from data_plane.http.routes import Operations, health_routes
from tidegate.http_front.front import Front
from tidegate.http_front.limits import FrontLimits
from tidegate.http_front.serving import config_of

log = structlog.get_logger()
LIMITS = FrontLimits(connections=64, body_bytes=64 * 1024, head_bytes=16 * 1024, unfinished_bytes=1024 * 1024)
"""Bounds of this port: small, since only probes and scrapers use it."""


def listen_or_exit(host: str, port: int, event: str) -> socket.socket:
    """A socket that listens. Where it cannot, the process logs ``event`` and ends, as uvicorn does for its own port."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        log.error(event, port=port, error=str(error))
        sys.exit(1)


class HealthServer(uvicorn.Server):
    """``/healthz``, ``/readyz`` and ``/metrics`` beside the node's own server, which takes the signals."""

    def __init__(self, operations: Operations) -> None:
        app = FastAPI(title="Tidegate node's health", openapi_url=None, docs_url=None, redoc_url=None)
        app.include_router(health_routes(operations))
        super().__init__(config_of(app, Front(limits=LIMITS), lifespan="off", timeout_graceful_shutdown=1))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the node's server."""
        yield
