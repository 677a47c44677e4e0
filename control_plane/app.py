"""The composition root: builds the application from its settings."""

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.metadata import version as distribution_version
from typing import Any, TypedDict

import structlog
from fastapi import FastAPI
from tenacity import AsyncRetrying, RetryCallState, wait_fixed

from control_plane.access.authentication import Authentication
from control_plane.access.body_limit import BodyLimit
from control_plane.access.live import LiveCredentials
from control_plane.api import api, console_links
from control_plane.canary.placement import CanaryPlacement
from control_plane.canary.service import RolloutEngine
from control_plane.config_file.rollback import undo
from control_plane.console.app import Console, console_of
from control_plane.console.app import pages as console_pages
from control_plane.console.sessions import nobody
from control_plane.credentials.tokens.last_used import LastUsed
from control_plane.credentials.tokens.repository import hashes_in_force, principal_by_secret
from control_plane.credentials.tokens.service import ensure_first_admin
from control_plane.database import Database
from control_plane.derivation import derive
from control_plane.errors import UnavailableError
from control_plane.jobs.leadership import Leadership
from control_plane.jobs.registry import Registry
from control_plane.jobs.runner import JobRunner
from control_plane.metrics import Metrics
from control_plane.migration import newest_migration
from control_plane.nodes.reports import Reports
from control_plane.oidc.sign_in import OpenIdConnect
from control_plane.orm import schema_fault
from control_plane.publishing.repository import Signer
from control_plane.publishing.writer import ConfigWriter
from control_plane.push.node_endpoints import AckBatcher, NodeReach
from control_plane.push.stream import FrameSource, HeadWatcher, OpenStreams
from control_plane.regions.repository import credentials_in_force, principal_by_credential
from control_plane.schedule import jobs_of
from control_plane.settings import Settings
from control_plane.usage.exports import Exports
from control_plane.usage.partitions import Partitions
from control_plane.usage.questions import NodeQuestions
from control_plane.usage.webhooks.service import WebhookKeys
from control_plane.web import openapi, problems
from control_plane.web.middleware import Measured, RequestIds

_log = structlog.stdlib.get_logger("tidegate.control_plane")
FIRST_TOKEN_RETRY_S = 1.0
AGAIN_AFTER_S = 1.0
NODES_REMEMBERED_S = 2.0
"""How long a region's credential is accepted without a query."""


class State(TypedDict):
    """The application's lifespan state; requests find it as ``request.state``."""

    settings: Settings
    database: Database
    writer: ConfigWriter
    watcher: HeadWatcher
    frames: FrameSource
    streams: OpenStreams
    reach: NodeReach
    reports: Reports
    acks: AckBatcher
    rollouts: RolloutEngine
    jobs: Registry
    metrics: Metrics
    usage_partitions: Partitions
    webhook_keys: WebhookKeys
    questions: NodeQuestions
    exports: Exports
    readiness: Callable[[], Awaitable[str | None]]
    console: Console
    oidc: OpenIdConnect | None


def create_app(settings: Settings) -> FastAPI:
    """The control plane as an ASGI application. Raises ``SettingsError`` for a key or token it cannot use."""
    signer = Signer(settings.signing_key())
    webhook_keys = WebhookKeys(settings.signing_key())
    first_token = settings.first_admin_token()
    last_used, metrics = LastUsed(), Metrics()
    live = LiveCredentials({"/v1/": hashes_in_force, "/internal/": credentials_in_force})
    oidc = OpenIdConnect(settings) if settings.oidc_issuer is not None else None

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[State]:
        database = Database(
            settings.database_url.get_secret_value(),
            connect_timeout_s=settings.database_connect_timeout_s,
            command_timeout_s=settings.database_command_timeout_s,
            pool_size=settings.database_pool_size,
        )
        watcher = HeadWatcher(database, settings.heartbeat_s)
        reports, acks = Reports(database), AckBatcher(database)
        streams = OpenStreams(database, settings.heartbeat_s, reports, credentials_in_force)
        app.state.watcher = watcher
        make_placement = partial(CanaryPlacement, heartbeat_s=settings.heartbeat_s)
        writer = ConfigWriter(database, signer, make_placement, derive)
        partitions = Partitions(database)
        engine = RolloutEngine(database, writer, undo, settings.heartbeat_s)
        registry = Registry(
            jobs_of(settings, database, writer, partitions, webhook_keys, engine, lambda: watcher.revision)
        )
        leadership = Leadership(database, JobRunner(database, registry, replica_name(settings), metrics).lead)
        _watch(metrics, watcher, streams, leadership)
        console = console_of(app, database, watcher, oidc.people.principal if oidc is not None else nobody)
        bootstrap = asyncio.create_task(_bootstrap(database, first_token))
        questions = NodeQuestions(database)
        work = (
            watcher.run,
            streams.run,
            leadership.run,
            questions.run,
            acks.run,
            partial(last_used.run, database),
            partial(live.run, database, watcher.moved.ticket),
            *(() if oidc is None else (oidc.provider.run,)),
        )
        tasks = [bootstrap, *(asyncio.create_task(run_forever(run)) for run in work)]
        state = State(
            settings=settings,
            database=database,
            writer=writer,
            watcher=watcher,
            frames=FrameSource(database, signer, metrics),
            streams=streams,
            reach=NodeReach(database, watcher, settings.heartbeat_s),
            reports=reports,
            acks=acks,
            rollouts=engine,
            jobs=registry,
            metrics=metrics,
            usage_partitions=partitions,
            webhook_keys=webhook_keys,
            questions=questions,
            exports=Exports(database),
            readiness=lambda: _fault(database, watcher, bootstrap, live),
            console=console,
            oidc=oidc,
        )
        if settings.console:
            tasks.append(asyncio.create_task(run_forever(partial(console.feed.run, state))))
        try:
            yield state
        finally:
            watcher.close()
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
            await streams.record()
            await last_used.write(database)
            await database.close()

    app = FastAPI(
        title="Tidegate control plane",
        version=distribution_version("tidegate"),
        description="Plans, limits, clients and keys, pushed to every node as signed revisions.",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        separate_input_output_schemas=True,
    )
    app.router.routes.extend(api().routes)
    if settings.console:
        app.router.routes.extend(console_links().routes)
        app.mount("/console", console_pages())
    problems.install(app)
    openapi.install(app)
    # the last added is the outermost: authentication comes before any body is read
    app.add_middleware(BodyLimit)
    app.add_middleware(
        Authentication,
        lookups={"/v1/": principal_by_secret, "/internal/": principal_by_credential},
        live=live,
        max_failures=settings.max_failed_authentications,
        note_used=last_used.note,
        remember_s={"/internal/": NODES_REMEMBERED_S},
        vouched_for={} if oidc is None else {"/v1/": oidc.bearer},
    )
    app.add_middleware(RequestIds)
    app.add_middleware(Measured, metrics=metrics)
    return app


async def run_forever(work: Callable[[], Coroutine[Any, Any, None]], again_after_s: float = AGAIN_AFTER_S) -> None:
    """Run ``work`` until it is cancelled. Restart it after any exception, which is a bug and logged as an error."""
    await AsyncRetrying(wait=wait_fixed(again_after_s), before_sleep=_died)(work)


def _died(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    _log.error("background_work_died", work=getattr(state.fn, "__qualname__", repr(state.fn)), exc_info=error)


def replica_name(settings: Settings) -> str:
    """The name of this process in the record of jobs, unique among running replicas."""
    return settings.replica or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"


def _watch(metrics: Metrics, watcher: HeadWatcher, streams: OpenStreams, leadership: Leadership) -> None:
    metrics.watch("leader", "1 while this replica runs the jobs", lambda: leadership.leads)
    metrics.watch("connected_nodes", "Open streams of this replica", lambda: streams.count)
    metrics.watch("revision", "Newest revision as this replica knows it", lambda: watcher.revision)


async def _bootstrap(database: Database, first_token: str | None) -> None:
    if first_token is None:
        return
    while True:
        try:
            if await ensure_first_admin(database, first_token):
                _log.info("the first admin token was stored")
        except UnavailableError as error:
            _log.warning("the first admin token must wait for the database", cause=repr(error.__cause__))
        else:
            return
        await asyncio.sleep(FIRST_TOKEN_RETRY_S)


async def _fault(
    database: Database, watcher: HeadWatcher, bootstrap: asyncio.Task[None], live: LiveCredentials
) -> str | None:
    if watcher.closing:
        return "This replica is shutting down."
    async with database.read() as session:
        fault = await schema_fault(session, newest_migration())
    if fault is not None:
        return fault
    if not bootstrap.done():
        return "The first admin token is not stored yet."
    if not live.complete:
        return "Which credentials are in force is not known yet."
    return None if watcher.head is not None else "The newest revision is not known yet."
