"""A port as uvicorn serves it."""

import asyncio
from functools import partial
from typing import Any, cast

import uvicorn

from tidegate.http_front.connection import Connection, Outbox
from tidegate.http_front.front import Front


def protocol_class(front: Front) -> type[asyncio.Protocol]:
    """For ``uvicorn.Config(http=...)``."""
    return cast("type[asyncio.Protocol]", partial(Connection, front, Outbox()))


def config_of(application: Any, front: Front, **options: Any) -> uvicorn.Config:
    """uvicorn's configuration of one port; ``options`` are address, TLS, lifespan and the time to stop in."""
    return uvicorn.Config(
        application, http=protocol_class(front), ws="none", access_log=False, log_config=None, server_header=False,
        proxy_headers=False, **options,
    )  # fmt: skip
