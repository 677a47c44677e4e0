"""In front of ASGI applications: a middleware for all routes, and a decorator for one (FastAPI, Starlette)."""

import contextlib
import inspect
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, MutableMapping
from functools import wraps
from typing import Any

import msgspec

from tidegate_client.asynchronous import AsyncTidegate
from tidegate_client.credentials import RefusedKeyError, encoded_path, key_in, without_zone
from tidegate_client.messages import Check, Decision, InvalidCheckError, refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Identify = Callable[[Scope], Check | Awaitable[Check]]
Skip = Callable[[Scope], bool | Awaitable[bool]]
Cost = Callable[[Scope], int | Awaitable[int]]
OnDenied = Callable[[Scope, Receive, Send, Decision], Awaitable[None]]


def by_key_and_route(scope: Scope) -> Check:
    """The default identity: the request's key, its address as the server knows it, its method and path.

    Behind a proxy let the server read the forwarded address (uvicorn: ``--proxy-headers``).
    """
    client = scope.get("client")
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    address = without_zone(client[0]) if client else None
    return Check(key_in(headers), None, address, scope["method"], encoded_path(scope["path"]))


async def answer_denied(scope: Scope, receive: Receive, send: Send, decision: Decision) -> None:
    """The default answer to a denial: an RFC 9457 problem. The middleware adds the rate limit headers."""
    del receive
    body = msgspec.json.encode(decision.problem())
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": decision.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


class TidegateMiddleware:
    """Asks before every HTTP request. ``identify`` makes the check, ``skip`` lets requests through unasked; both, and
    ``cost``, may be ``async``.

    The application finds the decision in ``scope["tidegate"]``. Whoever made ``limiter`` closes it.
    """

    def __init__(
        self, app: App, limiter: AsyncTidegate, *, identify: Identify = by_key_and_route, skip: Skip | None = None,
        on_denied: OnDenied = answer_denied, cost: Cost | None = None,
    ) -> None:  # fmt: skip
        self._app = app
        self._limiter = limiter
        self._identify = identify
        self._skip = skip
        self._on_denied = on_denied
        self._cost = cost

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or (self._skip is not None and await _awaited(self._skip(scope))):
            await self._app(scope, receive, send)
            return
        cost = 1 if self._cost is None else await _awaited(self._cost(scope))
        decision = await _decide(self._limiter, self._identify, scope, None, cost)
        lines = [(name.lower().encode(), value.encode()) for name, value in decision.headers().items()]

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = list(message.get("headers", ()))
                message = {**message, "headers": said + _unsaid(lines, said)}
            await send(message)

        if decision.allowed:
            scope["tidegate"] = decision
            await self._app(scope, receive, send_with_headers)
        else:
            await self._on_denied(scope, receive, send_with_headers, decision)


def rate_limit(
    limiter: AsyncTidegate, *, endpoint: str | None = None, cost: int = 1, identify: Identify = by_key_and_route,
    skip: Skip | None = None, on_denied: Callable[[Any, Decision], Any] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Awaitable[Any]]]:  # fmt: skip
    """Limit one route of FastAPI or Starlette, ``async def`` or ``def``; put it below the route's own decorator.

    ``endpoint`` names the route as the control plane knows it (needs a gateway token or a trusted network);
    ``on_denied(request, decision)`` returns the response to a denial, to which the rate limit headers are added.
    """
    from starlette.concurrency import run_in_threadpool  # noqa: PLC0415  # the client does not need Starlette otherwise
    from starlette.requests import Request  # noqa: PLC0415
    from starlette.responses import JSONResponse, Response  # noqa: PLC0415

    async def denied(request: Any, decision: Decision) -> Any:
        if on_denied is None:
            return JSONResponse(decision.problem(), decision.status, media_type="application/problem+json")
        return await _awaited(on_denied(request, decision))

    fixed = {"cost"} if endpoint is None else {"cost", "endpoint"}

    def decorate(view: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        signature = _signature_of(view)
        wanted = next((name for name, one in signature.parameters.items() if _is_request(one, Request)), None)
        added = "tidegate_request" if wanted is None else wanted
        gives_response = "tidegate_response"
        is_async = inspect.iscoroutinefunction(view)

        async def call(*args: Any, **kwargs: Any) -> Any:
            """The view, where the framework itself would run it."""
            return await (view(*args, **kwargs) if is_async else run_in_threadpool(view, *args, **kwargs))

        @wraps(view)
        async def limited(*args: Any, **kwargs: Any) -> Any:
            response = kwargs.pop(gives_response, None)
            request = kwargs.get(added) or next((one for one in args if isinstance(one, Request)), None)
            if wanted is None:
                kwargs.pop(added, None)
            if request is None:
                raise TypeError("rate_limit: the route gets no Request")
            if skip is not None and await _awaited(skip(request.scope)):
                return await call(*args, **kwargs)
            decision = await _decide(limiter, identify, request.scope, endpoint, cost, fixed)
            if decision.allowed:
                request.scope["tidegate"] = decision
                with _headers_on_errors(decision):
                    result = await call(*args, **kwargs)
            else:
                result = await denied(request, decision)
            _put_headers(decision, result if isinstance(result, Response) else response)
            return result

        # FastAPI reads the signature to know what to hand over; Starlette calls with the request alone.
        parameters = list(signature.parameters.values())
        extra = [inspect.Parameter(gives_response, inspect.Parameter.KEYWORD_ONLY, annotation=Response)]
        if wanted is None:
            extra.insert(0, inspect.Parameter(added, inspect.Parameter.KEYWORD_ONLY, annotation=Request))
        if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters):
            limited.__signature__ = signature.replace(parameters=[*parameters, *extra])  # type: ignore[attr-defined]  # as inspect documents
        return limited

    return decorate


async def _awaited(answer: Any) -> Any:
    """The result of a function of the application, ``async`` or not."""
    return await answer if inspect.isawaitable(answer) else answer


async def _decide(
    limiter: AsyncTidegate,
    identify: Identify,
    scope: Scope,
    endpoint: str | None,
    cost: int,
    fixed: Container[str] = (),
) -> Decision:
    """The decision on a request; what an end user has garbled is refused, never an error of the application.

    What is wrong in the members that the application has ``fixed`` follows the fail policy.
    """
    try:
        check = await _awaited(identify(scope))
        if endpoint is not None:
            check = check._replace(method=None, path=None, endpoint=endpoint)
        return await limiter.decide(check, cost)
    except RefusedKeyError as error:
        return refusal(401, error.error, str(error))
    except InvalidCheckError as error:
        return limiter.mistaken(error, fixed) or refusal(403, "malformed_request", str(error))


def _put_headers(decision: Decision, response: Any) -> None:
    """On an answer of Starlette's, if there is one; what it says already stands."""
    for name, value in decision.headers().items() if response is not None else ():
        response.headers.setdefault(name, value)


@contextlib.contextmanager
def _headers_on_errors(decision: Decision) -> Iterator[None]:
    """On an ``HTTPException`` of the view's: an answer as well, which the framework makes of it."""
    from starlette.exceptions import HTTPException  # noqa: PLC0415

    try:
        yield
    except HTTPException as error:
        # The same one may be raised for each request: what we said on the one before is not what it says.
        said: dict[str, str] = vars(error).setdefault("said_by_view", dict(error.headers or {}))
        names = {name.lower() for name in said}
        unsaid = {name: value for name, value in decision.headers().items() if name.lower() not in names}
        error.headers = {**said, **unsaid}
        raise


def _signature_of(view: Callable[..., Any]) -> inspect.Signature:
    """With types in place of their names (``from __future__ import annotations``), where all of them are to be had."""
    try:
        return inspect.signature(view, eval_str=True)
    except Exception:  # noqa: BLE001  # annotations may be any text
        return inspect.signature(view)


def _is_request(parameter: inspect.Parameter, request_class: type) -> bool:
    annotation = parameter.annotation
    if isinstance(annotation, type):
        return issubclass(annotation, request_class)
    return annotation == "Request" or (annotation is inspect.Parameter.empty and parameter.name == "request")


def _unsaid(lines: list[tuple[bytes, bytes]], said: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Those that the application has not written itself, as a decorator of its own would."""
    names = {name.lower() for name, _ in said}
    return [line for line in lines if line[0] not in names]
