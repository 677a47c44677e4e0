"""Every route of the admin API and of nodes, put together once a process and shared by its applications."""

from functools import cache
from typing import Any, get_args, get_origin

from fastapi import APIRouter, Depends, Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query

from control_plane.access.scope import ScopeGuard
from control_plane.audit.endpoints import router as audit_router
from control_plane.blocks.endpoints import router as blocks_router
from control_plane.canary.endpoints import router as rollouts_router
from control_plane.clients.endpoints import router as clients_router
from control_plane.clients.import_endpoints import router as imports_router
from control_plane.clients.repository import plan_of
from control_plane.config_file.endpoints import router as config_file_router
from control_plane.config_file.rollback_endpoints import router as rollback_router
from control_plane.config_file.sections import SECTIONS
from control_plane.console.endpoints import router as console_links_router
from control_plane.credentials.keys.endpoints import router as keys_router
from control_plane.credentials.regions import router as region_credentials_router
from control_plane.credentials.reporters.endpoints import router as reporters_router
from control_plane.credentials.tokens.endpoints import router as tokens_router
from control_plane.enforcement.endpoints import router as enforcement_router
from control_plane.errors import FieldError, InvalidError
from control_plane.jobs.endpoints import router as jobs_router
from control_plane.push.endpoints import router as rollout_router
from control_plane.push.node_endpoints import router as nodes_router
from control_plane.quotas.endpoints import router as quotas_router
from control_plane.routes.endpoints import load_router
from control_plane.usage.denial_endpoints import router as denials_router
from control_plane.usage.endpoints import router as usage_router
from control_plane.usage.exchange_endpoints import router as exchange_router
from control_plane.usage.node_endpoints import router as node_usage_router
from control_plane.usage.plan_endpoints import router as plan_usage_router
from control_plane.usage.webhooks.endpoints import router as webhooks_router
from control_plane.web.health import router as health_router

MOST_NAMED = 100


def known_parameters_only(request: Request) -> None:
    """Refuse a query that the admin API's route does not know: a misspelt ``dry_run`` must not become a write.

    And one that says twice what is said once: the last would count, and nobody would know that the others did not.
    What nodes ask is left alone: one of a newer version may ask for more.
    """
    if not request.query_params or not request.scope["path"].startswith("/v1/"):
        return
    parameters = get_flat_params(request.scope["route"].dependant)
    known = {one.alias: one.field_info.annotation for one in parameters if isinstance(one.field_info, Query)}
    wrong = [FieldError(name, "unknown parameter") for name in request.query_params if name not in known]
    wrong += [
        FieldError(name, "is given more than once")
        for name, kind in known.items()
        if len(request.query_params.getlist(name)) > 1 and not _takes_several(kind)
    ]
    if wrong:
        raise InvalidError(wrong[:MOST_NAMED])


def _takes_several(kind: Any) -> bool:
    return any(get_origin(one) is list for one in (kind, *get_args(kind)))


_GUARDED = [Depends(ScopeGuard(plan_of)), Depends(known_parameters_only)]
"""Routes that an application takes over bring their dependencies with them: those of the application do not count."""


@cache
def api() -> APIRouter:
    """The routes in the order in which they are tried.

    FastAPI works out a route when it is first asked, for each router that includes it: half a second for all of
    these. Applications share the routes of this one router, each with the guard of scopes.
    """
    together = APIRouter(dependencies=_GUARDED)
    for router in (
        nodes_router,  # first: what 500 nodes call is to be found at once
        health_router,
        *{id(section.router): section.router for section in SECTIONS}.values(),  # two sections may share a router
        reporters_router,
        clients_router,
        keys_router,
        imports_router,
        region_credentials_router,
        quotas_router,
        rollout_router,
        rollouts_router,
        tokens_router,
        audit_router,
        config_file_router,
        rollback_router,
        jobs_router,
        load_router,
        blocks_router,
        enforcement_router,
        usage_router,
        denials_router,
        exchange_router,
        plan_usage_router,
        webhooks_router,
        node_usage_router,
    ):
        together.include_router(router)
    return together


@cache
def console_links() -> APIRouter:
    """The routes by which the console finds its pages; only where there is a console."""
    together = APIRouter(dependencies=_GUARDED)
    together.include_router(console_links_router)
    return together
