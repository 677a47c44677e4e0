"""Runs the application: streams end when it is told to stop, and bodies are bounded before it sees them."""

import socket

import uvicorn
from fastapi import FastAPI

from control_plane.access.body_limit import MAX_FILE_BYTES
from control_plane.app import create_app
from control_plane.push.watcher import HeadWatcher
from control_plane.settings import Settings
from tidegate.http_front.front import Front
from tidegate.http_front.limits import FrontLimits, use_all_descriptors
from tidegate.http_front.serving import config_of

LIMITS = FrontLimits(body_bytes=MAX_FILE_BYTES, unfinished_bytes=2 * MAX_FILE_BYTES, write_s=60.0)
"""Whole files come in here, and a node that takes in a whole configuration may read nothing meanwhile."""


class ControlPlaneServer(uvicorn.Server):
    """uvicorn, but open streams end when it shuts down: it would wait for them otherwise."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell the streams, then close."""
        watcher: HeadWatcher | None = getattr(self._app.state, "watcher", None)
        if watcher is not None:
            watcher.close()
        await super().shutdown(sockets)


def server(settings: Settings) -> ControlPlaneServer:
    """A server that is ready to ``serve()`` or ``run()``."""
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
