"""Calls of the REST routes in this process, below authentication, with the role of whoever is logged in.

So a page can do exactly what the API can: roles, preconditions, audit, idempotency and ``Prefer: wait`` are the
routes' own.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message

from control_plane.access.principals import Principal


class Answer(NamedTuple):
    """What a route answered; ``body`` is its JSON, or ``None``."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def ok(self) -> bool:
        """Whether it did what was asked."""
        return self.status < 400

    @property
    def detail(self) -> str:
        """Why it did not."""
        return str(self.body["detail"]) if isinstance(self.body, dict) and "detail" in self.body else ""

    @property
    def errors(self) -> dict[str, str]:
        """What is wrong with which field."""
        items = self.body.get("errors", ()) if isinstance(self.body, dict) else ()
        return {item["field"]: item["message"] for item in items}

    def checked(self) -> "Answer":
        """The answer, if it did what was asked. Raises :class:`RefusedError`."""
        if not self.ok:
            raise RefusedError(self)
        return self


class RefusedError(Exception):
    """A read that a page cannot do without was refused."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.detail)
        self.answer = answer


def routes_of(rest: FastAPI) -> ASGIApp:
    """The routes of the REST API without their middleware, with the translation of their errors."""
    handlers = {kind: handler for kind, handler in rest.exception_handlers.items() if kind not in {500, Exception}}
    return ExceptionMiddleware(AsyncExitStackMiddleware(rest.router), handlers=handlers)


class Api:
    """The REST API as one caller sees it."""

    def __init__(self, routes: ASGIApp, principal: Principal, scope: Mapping[str, Any]) -> None:
        self._routes = routes
        self._principal = principal
        self._scope = scope

    @classmethod
    def of(cls, request: Request, routes: ASGIApp, principal: Principal) -> "Api":
        """For a page: the audit log names the browser's address and the page's request id."""
        return cls(routes, principal, _scope_of(request))

    @property
    def state(self) -> Mapping[str, Any]:
        """What lives as long as the application."""
        state: Mapping[str, Any] = self._scope["state"]
        return state

    async def read(self, path: str, **query: object) -> Any:
        """What ``GET`` answers. Raises :class:`RefusedError`."""
        return (await self.ask(path, **query)).checked().body

    async def read_all(self, path: str, **query: object) -> list[Any]:
        """The items of all pages. Raises :class:`RefusedError`."""
        items, cursor = [], None
        while True:
            part = await self.read(path, limit=1000, cursor=cursor, **query)
            items += part["items"]
            cursor = part["next_cursor"]
            if cursor is None:
                return items

    async def existing(self, path: str) -> Answer:
        """The answer to ``GET`` of something that is there, with its ETag. Raises :class:`RefusedError`."""
        return (await self.ask(path)).checked()

    async def find(self, path: str, **query: object) -> Any:
        """What ``GET`` answers, or ``None`` where there is no such thing or the name cannot be one."""
        answer = await self.ask(path, **query)
        return None if answer.status in {404, 422} else answer.checked().body

    async def permitted(self, path: str, **query: object) -> Any:
        """What ``GET`` answers, or ``None`` where the visitor's role does not reach. Raises :class:`RefusedError`."""
        answer = await self.ask(path, **query)
        return None if answer.status == 403 else answer.checked().body

    async def ask(self, path: str, **query: object) -> Answer:
        """Whatever ``GET`` answers; members of ``query`` that are ``None`` are left out, ``from_`` is ``from``."""
        given = {name.rstrip("_"): value for name, value in query.items() if value is not None}
        return await self.send("GET", path, query=urlencode(given, doseq=True))

    async def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        query: str = "",
    ) -> Answer:
        """Call a route."""
        scope = {**self._scope, "query_string": query.encode(), "principal": self._principal}
        return await _call(self._routes, scope, method, path, headers or {}, body)


async def call(app: ASGIApp, request: Request, method: str, path: str, headers: Mapping[str, str]) -> Answer:
    """Call a route as a stranger would, through authentication and its throttle."""
    return await _call(app, _scope_of(request), method, path, headers, None)


def _scope_of(request: Request) -> dict[str, Any]:
    return {name: request.scope.get(name) for name in ("app", "client", "server", "state", "request_id")}


async def _call(
    app: ASGIApp,
    scope: Mapping[str, Any],
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: Mapping[str, Any] | None,
) -> Answer:
    content = b"" if body is None else json.dumps(body).encode()
    sent = {"host": "console", "content-type": "application/json", "content-length": str(len(content))}
    sent |= {name.lower(): value for name, value in headers.items()}
    whole = {
        "query_string": b"",
        **scope,
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": quote(path).encode(),
        "root_path": "",
        # people write UTF-8 into headers, which are read as latin-1
        "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
    }
    unread = [content]
    status, answered, parts = 500, {}, []

    async def receive() -> Message:
        if not unread:
            await asyncio.Event().wait()  # whoever asks again waits for a client that leaves, and this one does not
        return {"type": "http.request", "body": unread.pop(), "more_body": False}

    async def take(message: Message) -> None:
        nonlocal status, answered
        if message["type"] == "http.response.start":
            status = message["status"]
            answered = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in message["headers"]}
        else:
            parts.append(message.get("body", b""))

    await app(whole, receive, take)
    content = b"".join(parts)
    return Answer(status, answered, json.loads(content) if content and _is_json(answered) else None)


def segment(name: str) -> str:
    """A name as a part of a path; names of clients hold ``:`` and ``@``, which stay as they are (RFC 3986, 3.3)."""
    return quote(name, safe=":@")


def _is_json(headers: Mapping[str, str]) -> bool:
    return "json" in headers.get("content-type", "")
