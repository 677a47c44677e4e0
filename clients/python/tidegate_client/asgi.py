"""In front of ASGI applications: a middleware for all routes, and a decorator for one (FastAPI, Starlette)."""

import inspect
from collections.abc import Awaitable, Callable, MutableMapping
from functools import wraps
from typing import Any

import msgspec

from tidegate_client.asynchronous import AsyncTidegate
from tidegate_client.credentials import key_in
from tidegate_client.messages import Check, Decision

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Identify = Callable[[Scope], Check]
Skip = Callable[[Scope], bool]
OnDenied = Callable[[Scope, Receive, Send, Decision], Awaitable[None]]


def by_key_and_route(scope: Scope) -> Check:
    """The default identity: the request's key, its address as the server knows it, its method and path.

    Behind a proxy let the server read the forwarded address (uvicorn: ``--proxy-headers``).
    """
    client = scope.get("client")
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    return Check(key_in(headers), None, client[0] if client else None, scope["method"], scope["path"])


async def answer_denied(scope: Scope, receive: Receive, send: Send, decision: Decision) -> None:
    """The default answer to a denial: an RFC 9457 problem with the rate limit headers."""
    del scope, receive
    body = msgspec.json.encode(decision.problem())
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": decision.status, "headers": headers + _lines(decision)})
    await send({"type": "http.response.body", "body": body})


class TidegateMiddleware:
    """Asks before every HTTP request. ``identify`` makes the check, ``skip`` lets requests through unasked.

    The application finds the decision in ``scope["tidegate"]``. Whoever made ``limiter`` closes it.
    """

    def __init__(
        self, app: App, limiter: AsyncTidegate, *, identify: Identify = by_key_and_route, skip: Skip | None = None,
        on_denied: OnDenied = answer_denied, cost: Callable[[Scope], int] | None = None,
    ) -> None:  # fmt: skip
        self._app = app
        self._limiter = limiter
        self._identify = identify
        self._skip = skip
        self._on_denied = on_denied
        self._cost = cost

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or (self._skip is not None and self._skip(scope)):
            await self._app(scope, receive, send)
            return
        cost = 1 if self._cost is None else self._cost(scope)
        decision = await self._limiter.decide(self._identify(scope), cost)
        if not decision.allowed:
            await self._on_denied(scope, receive, send, decision)
            return
        scope["tidegate"] = decision
        lines = _lines(decision)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *lines]}
            await send(message)

        await self._app(scope, receive, send_with_headers)


def rate_limit(
    limiter: AsyncTidegate, *, endpoint: str | None = None, cost: int = 1, identify: Identify = by_key_and_route,
    skip: Skip | None = None, on_denied: Callable[[Any, Decision], Any] | None = None,
) -> Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]]:  # fmt: skip
    """Limit one route of FastAPI or Starlette; put it below the route's own decorator.

    ``endpoint`` names the route as the control plane knows it (needs a gateway token or a trusted network);
    ``on_denied(request, decision)`` returns the response to a denial.
    """
    from starlette.requests import Request  # noqa: PLC0415  # the client does not need Starlette otherwise
    from starlette.responses import JSONResponse, Response  # noqa: PLC0415

    def denied(request: Any, decision: Decision) -> Any:
        del request
        return JSONResponse(
            decision.problem(), decision.status, decision.headers(), media_type="application/problem+json"
        )

    answer = on_denied or denied

    def decorate(view: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        signature = inspect.signature(view)
        wanted = next((name for name, one in signature.parameters.items() if _is_request(one, Request)), None)
        added = "tidegate_request" if wanted is None else wanted
        gives_response = "tidegate_response"

        @wraps(view)
        async def limited(*args: Any, **kwargs: Any) -> Any:
            response = kwargs.pop(gives_response, None)
            request = kwargs.get(added) or next((one for one in args if isinstance(one, Request)), None)
            if wanted is None:
                kwargs.pop(added, None)
            if request is None:
                raise TypeError("rate_limit: the route gets no Request")
            if skip is not None and skip(request.scope):
                return await view(*args, **kwargs)
            check = identify(request.scope)
            if endpoint is not None:
                check = check._replace(method=None, path=None, endpoint=endpoint)
            decision = await limiter.decide(check, cost)
            if not decision.allowed:
                made = answer(request, decision)
                return await made if inspect.isawaitable(made) else made
            request.scope["tidegate"] = decision
            result = await view(*args, **kwargs)
            carrier = result if isinstance(result, Response) else response
            if carrier is not None:
                carrier.headers.update(decision.headers())
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


def _is_request(parameter: inspect.Parameter, request_class: type) -> bool:
    annotation = parameter.annotation
    if isinstance(annotation, type):
        return issubclass(annotation, request_class)
    return annotation == "Request" or (annotation is inspect.Parameter.empty and parameter.name == "request")


def _lines(decision: Decision) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in decision.headers().items()]
