"""The console as an application under ``/console``: sessions in front, pages behind, one way to show errors."""

import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import NamedTuple
from urllib.parse import quote

import structlog
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from control_plane.console import actions, cookies, login, people
from control_plane.console.api import Api, RefusedError, routes_of
from control_plane.console.feed import Feed, Part
from control_plane.console.pages import access, backends, changes, client, now, plan, regions, why
from control_plane.console.render import HEADERS, html, static
from control_plane.console.sessions import May, PrincipalOf, Sessions, Visitor
from control_plane.console.visit import Handler, Visit, form_of
from control_plane.database import Database
from control_plane.errors import UnavailableError
from control_plane.push.stream import HeadWatcher

PARTS: Mapping[str, Part] = {
    "now-status": Part("now_status.html", now.read_status, at_once=True),
    "now-rates": Part("now_rates.html", now.read_rates, at_once=False),
    "rollouts": Part("rollouts.html", changes.read_rollouts, at_once=True),
    "revisions": Part("revisions.html", changes.read_revisions, at_once=True),
    "regions": Part("regions_part.html", regions.read, at_once=False),
    "backends": Part("backends_part.html", backends.read, at_once=False),
}
PAGES: Mapping[str, Handler] = {
    "/": now.page,
    "/why": why.page,
    "/clients": client.search,
    "/client/{client}": client.page,
    "/plans": plan.index,
    "/plan/{plan}": plan.page,
    "/regions": regions.page,
    "/backends": backends.page,
    "/changes": changes.page,
    "/revision/{number}": changes.revision,
    "/developer": access.developer,
    "/developer/api": access.reference,
    "/access": access.page,
    "/do/{action}": actions.show,
}
FORMS: Mapping[str, Handler] = {
    "/why": why.ask,
    "/plan/{plan}/what-if": plan.what_if,
    "/do/{action}": actions.do,
    "/logout": login.out,
}
_log = structlog.stdlib.get_logger("tidegate.console")


class Console(NamedTuple):
    """What lives as long as the application; requests find it as ``request.state.console``."""

    rest: FastAPI
    routes: ASGIApp
    sessions: Sessions
    feed: Feed

    def api(self, request: Request, visitor: Visitor) -> Api:
        """The REST API as this visitor may use it."""
        return Api.of(request, self.routes, visitor.principal)


def console_of(rest: FastAPI, database: Database, watcher: HeadWatcher, principal_of: PrincipalOf) -> Console:
    """The console's state for a replica; ``principal_of`` says what a person may do."""
    routes, sessions = routes_of(rest), Sessions(database, principal_of)
    return Console(rest, routes, sessions, Feed(watcher, sessions, routes, PARTS))


def pages() -> ASGIApp:
    """Every route under ``/console``."""
    public = [
        Route("/login", _named("/login", login.show), methods=["GET"]),
        Route("/login", _named("/login", login.by_token), methods=["POST"]),
        Route("/oidc/begin", _named("/oidc/begin", people.begin), methods=["GET"]),
        Route("/oidc/callback", _named("/oidc/callback", people.finish), methods=["GET"]),
        Route("/link/{code}", _named("/link/{code}", login.by_link), methods=["GET"]),
        Route("/static/{name:path}", _named("/static/{name}", static), methods=["GET"]),
        Route("/events", _named("/events", _events), methods=["GET"]),
    ]
    shown = [Route(path, _named(path, _behind_session(page)), methods=["GET"]) for path, page in PAGES.items()]
    sent = [Route(path, _named(path, _behind_session(form)), methods=["POST"]) for path, form in FORMS.items()]
    return Starlette(routes=[*public, *shown, *sent], exception_handlers={404: _not_found, Exception: _broken})


def _named(path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def named(request: Request) -> Response:
        request.scope["route"] = SimpleNamespace(path=f"/console{path}")  # by which requests are counted
        return await endpoint(request)

    return named


def _behind_session(handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        console: Console = request.state.console
        writes = request.method == "POST"
        if writes and not cookies.is_same_origin(request):
            return _problem(403, "Not from here", "The form was sent from another site, so nothing was done.")
        try:
            visitor = await _visitor(request, console.sessions)
        except UnavailableError:
            return _problem(503, "Postgres is away", "This replica does not know your session, and cannot look it up.")
        if visitor is None:
            return _to_login(request)
        form = await form_of(request) if writes else {}
        if writes and not hmac.compare_digest(form.get("csrf", "").encode(), visitor.csrf.encode()):
            return _problem(403, "This form is too old", "Its session has ended: go back, load the page and try again.")
        return await _answered(handler, Visit(request, visitor, console.api(request, visitor), console.feed, form))

    return endpoint


async def _answered(handler: Handler, visit: Visit) -> Response:
    if visit.visitor.stale:
        return _away(visit)
    try:
        response = await handler(visit)
    except RefusedError as error:
        return _refused(visit, error)
    except UnavailableError:
        return _away(visit)
    visit.feed.note_answer(away=False)
    return response


async def _visitor(request: Request, sessions: Sessions, *, acts: bool = True) -> Visitor | None:
    secret = cookies.secret_in(request)
    return None if secret is None else await sessions.visitor(secret, acts=acts)


def _to_login(request: Request) -> Response:
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if request.method == "GET" and request.headers.get("sec-fetch-site") == "cross-site":
        # a link in a chat: the strict cookie did not come along, and does once the page is asked for from here
        return html("entered.html", target=target)
    if request.method != "GET":
        target = login.HOME
    return RedirectResponse(f"/console/login?next={quote(target)}", 303, HEADERS)


async def _events(request: Request) -> Response:
    console: Console = request.state.console
    try:
        visitor = await _visitor(request, console.sessions, acts=False)
    except UnavailableError:
        headers = {**HEADERS, "Retry-After": "5"}
        return Response("Postgres is away.", 503, headers, media_type="text/plain")
    if visitor is None:
        return Response("Log in first.", 401, HEADERS, media_type="text/plain")
    if not May(visitor.principal.role)("viewer"):
        return Response("Parts of pages are about every client.", 403, HEADERS, media_type="text/plain")
    if console.feed.full:
        headers = {**HEADERS, "Retry-After": "30"}
        return Response("This replica has as many open tabs as it bears.", 503, headers, media_type="text/plain")

    async def lines() -> AsyncIterator[str]:
        # opened in here: a generator that never starts would never run its `finally`
        tab = console.feed.open(request.query_params.get("of", ""), visitor)
        try:
            async for message in tab.messages():
                yield message
        finally:
            console.feed.close(tab)

    return StreamingResponse(lines(), 200, {**HEADERS, "Cache-Control": "no-store"}, media_type="text/event-stream")


def _refused(visit: Visit, error: RefusedError) -> Response:
    answer = error.answer
    if answer.status == 503:
        return _away(visit)
    titles = {403: "Not for your role", 404: "Not found", 422: "This cannot be asked"}
    title = titles.get(answer.status, "It was refused")
    return visit.page("problem.html", answer.status, title=title, detail=answer.detail)


def _away(visit: Visit) -> Response:
    """Postgres does not answer: show that, and the nodes as they were last known."""
    visit.feed.note_answer(away=True)
    return visit.page("away.html", 503, overview=visit.feed.overview if visit.may("viewer") else None)


def _problem(status: int, title: str, detail: str) -> Response:
    return html("stranger.html", status, title=title, detail=detail)


async def _not_found(_: Request, __: Exception) -> Response:
    return _problem(404, "Not found", "The console has no such page.")


async def _broken(request: Request, error: Exception) -> Response:
    _log.error("a page failed", path=request.url.path, exc_info=error)
    return _problem(500, "Something went wrong on our side", "It has been logged, with the id of this request.")
