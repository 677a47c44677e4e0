"""Runs the application: streams end at shutdown, and bodies are bounded before the application reads them."""

import socket

import uvicorn
from fastapi import FastAPI

from control_plane.access.body_limit import MAX_FILE_BYTES
from control_plane.app import create_app
from control_plane.push.stream import HeadWatcher
from control_plane.settings import Settings
from tidegate.http_front.front import Front
from tidegate.http_front.limits import FrontLimits, use_all_descriptors
from tidegate.http_front.serving import config_of

LIMITS = FrontLimits(body_bytes=MAX_FILE_BYTES, unfinished_bytes=2 * MAX_FILE_BYTES, write_s=60.0)
"""Bounds that allow whole files, and nodes that read nothing while they apply a whole configuration."""


class ControlPlaneServer(uvicorn.Server):
    """uvicorn that ends open streams at shutdown instead of waiting for them."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then close."""
        watcher: HeadWatcher | None = getattr(self._app.state, "watcher", None)
        if watcher is not None:
            watcher.close()
        await super().shutdown(sockets)


def server(settings: Settings) -> ControlPlaneServer:
    """A server; call ``serve()`` or ``run()``."""
    app = create_app(settings)
    config = config_of(
        app,
        Front(limits=LIMITS),
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=settings.shutdown_grace_s,
    )
    return ControlPlaneServer(config, app)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    use_all_descriptors()
    server(settings).run()
