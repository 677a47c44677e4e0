"""In front of Flask applications: all routes, or one by a decorator."""

from collections.abc import Callable, Container
from functools import wraps
from typing import Any

from flask import Flask, Response, after_this_request, current_app, g, jsonify, make_response, request

from tidegate_client.credentials import RefusedKeyError, encoded_path, key_in, without_zone
from tidegate_client.messages import Check, Decision, InvalidCheckError, refusal
from tidegate_client.synchronous import Tidegate

Identify = Callable[[], Check]
Skip = Callable[[], bool]
OnDenied = Callable[[Decision], Any]


def by_key_and_route() -> Check:
    """The default identity: the request's key, its address, its method and path.

    Behind a proxy put Werkzeug's ``ProxyFix`` in front, so that ``remote_addr`` is the client's.
    """
    key = key_in(request.headers.items())
    return Check(key, None, without_zone(request.remote_addr), request.method, encoded_path(request.path))


def answer_denied(decision: Decision) -> Response:
    """The default answer to a denial: an RFC 9457 problem. The rate limit headers are added to it."""
    response = jsonify(decision.problem())
    response.status_code = decision.status
    response.content_type = "application/problem+json"
    return response


class TidegateFlask:
    """Asks before every request of ``app``; views find the decision in ``flask.g.tidegate``.

    ``cost()`` says what the request at hand costs (1 unless given).
    """

    def __init__(
        self, app: Flask, limiter: Tidegate, *, identify: Identify = by_key_and_route, skip: Skip | None = None,
        on_denied: OnDenied = answer_denied, cost: Callable[[], int] | None = None,
    ) -> None:  # fmt: skip
        self._limiter = limiter
        self._identify = identify
        self._skip = skip
        self._on_denied = on_denied
        self._cost = cost
        app.before_request(self._before)

    def _before(self) -> Any:
        if self._skip is not None and current_app.ensure_sync(self._skip)():
            return None
        cost = 1 if self._cost is None else self._cost()
        return _ask(self._limiter, self._identify, None, cost, self._on_denied)


def rate_limit(
    limiter: Tidegate, *, endpoint: str | None = None, cost: int = 1, identify: Identify = by_key_and_route,
    skip: Skip | None = None, on_denied: OnDenied = answer_denied,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # fmt: skip
    """Limit one view, ``def`` or ``async def``; put it below the route's own decorator.

    ``endpoint`` is the route's name at the control plane.
    """
    fixed = {"cost"} if endpoint is None else {"cost", "endpoint"}

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def limited(*args: Any, **kwargs: Any) -> Any:
            if skip is None or not current_app.ensure_sync(skip)():
                denied = _ask(limiter, identify, endpoint, cost, on_denied, fixed)
                if denied is not None:
                    return denied
            return current_app.ensure_sync(view)(*args, **kwargs)

        return limited

    return decorate


def _ask(
    limiter: Tidegate, identify: Identify, endpoint: str | None, cost: int, on_denied: OnDenied,
    fixed: Container[str] = (),
) -> Any:  # fmt: skip
    """``None`` when allowed; the answer to send otherwise. Its headers are added to whatever is answered."""
    decision = g.tidegate = _decide(limiter, identify, endpoint, cost, fixed)

    @after_this_request
    def add_headers(response: Response) -> Response:
        # A decorator's decision comes after the application's, and what is answered is by it.
        for name, value in g.tidegate.headers().items():
            response.headers.setdefault(name, value)
        return response

    return None if decision.allowed else make_response(on_denied(decision))


def _decide(limiter: Tidegate, identify: Identify, endpoint: str | None, cost: int, fixed: Container[str]) -> Decision:
    """The decision on the request at hand; what an end user has garbled is refused, no error of the application."""
    try:
        check = identify()
        if endpoint is not None:
            check = check._replace(method=None, path=None, endpoint=endpoint)
        return limiter.decide(check, cost)
    except RefusedKeyError as error:
        return refusal(401, error.error, str(error))
    except InvalidCheckError as error:
        return limiter.mistaken(error, fixed) or refusal(403, "malformed_request", str(error))
