"""Health, readiness, status, metrics."""

from typing import Any, Protocol

import msgspec
from fastapi import APIRouter, Response

from data_plane.http import openapi
from data_plane.http.answers import json_answer
from data_plane.http.bodies import to_response


class Operations(Protocol):
    """What a node can say of itself."""

    draining: bool
    """Whether it was asked to stop."""

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether it serves, and the body of ``/readyz``."""
        ...

    def status(self) -> dict[str, Any]:
        """The body of ``/v1/status``."""
        ...

    def metrics(self) -> Response:
        """The answer of ``/metrics``."""
        ...


def health_routes(operations: Operations) -> APIRouter:
    """``/healthz``, ``/readyz`` and ``/metrics``: what probes and scrapers ask."""
    router = APIRouter()

    @router.get("/healthz", **openapi.HEALTH)
    async def healthz() -> dict[str, str]:
        """Alive: the process serves."""
        return {"status": "ok"}

    @router.get("/readyz", **openapi.READY)
    async def readyz() -> Response:
        """Ready: a config is in force, the store was reached once, and nobody asked the node to stop."""
        is_ready, body = operations.ready()
        answer = json_answer(body)
        return to_response(answer if is_ready else msgspec.structs.replace(answer, status=503))

    @router.get("/metrics", **openapi.METRICS)
    async def metrics() -> Response:
        """Prometheus metrics."""
        return operations.metrics()

    return router


def operation_routes(operations: Operations) -> APIRouter:
    """The same, and ``/v1/status``."""
    router = health_routes(operations)

    @router.get("/v1/status", **openapi.STATUS)
    async def node_status() -> Response:
        """Region, revision, digest, age of the config, peers, store."""
        return to_response(json_answer(operations.status()))

    return router
