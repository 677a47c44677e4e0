"""In front of Flask applications: all routes, or one by a decorator."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import Flask, Response, after_this_request, g, jsonify, request

from tidegate_client.credentials import key_in
from tidegate_client.messages import Check, Decision
from tidegate_client.synchronous import Tidegate

Identify = Callable[[], Check]
Skip = Callable[[], bool]
OnDenied = Callable[[Decision], Any]


def by_key_and_route() -> Check:
    """The default identity: the request's key, its address, its method and path.

    Behind a proxy put Werkzeug's ``ProxyFix`` in front, so that ``remote_addr`` is the client's.
    """
    return Check(key_in(request.headers.items()), None, request.remote_addr, request.method, request.path)


def answer_denied(decision: Decision) -> Response:
    """The default answer to a denial: an RFC 9457 problem with the rate limit headers."""
    response = jsonify(decision.problem())
    response.status_code = decision.status
    response.headers.update(decision.headers())
    response.content_type = "application/problem+json"
    return response


class TidegateFlask:
    """Asks before every request of ``app``; views find the decision in ``flask.g.tidegate``."""

    def __init__(
        self, app: Flask, limiter: Tidegate, *, identify: Identify = by_key_and_route, skip: Skip | None = None,
        on_denied: OnDenied = answer_denied,
    ) -> None:  # fmt: skip
        self._limiter = limiter
        self._identify = identify
        self._skip = skip
        self._on_denied = on_denied
        app.before_request(self._before)

    def _before(self) -> Any:
        if self._skip is not None and self._skip():
            return None
        return _ask(self._limiter, self._identify(), 1, self._on_denied)


def rate_limit(
    limiter: Tidegate, *, endpoint: str | None = None, cost: int = 1, identify: Identify = by_key_and_route,
    skip: Skip | None = None, on_denied: OnDenied = answer_denied,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # fmt: skip
    """Limit one view; put it below the route's own decorator. ``endpoint`` is the route's name at the control plane."""

    def decorate(view: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(view)
        def limited(*args: Any, **kwargs: Any) -> Any:
            if skip is None or not skip():
                check = identify()
                if endpoint is not None:
                    check = check._replace(method=None, path=None, endpoint=endpoint)
                denied = _ask(limiter, check, cost, on_denied)
                if denied is not None:
                    return denied
            return view(*args, **kwargs)

        return limited

    return decorate


def _ask(limiter: Tidegate, check: Check, cost: int, on_denied: OnDenied) -> Any:
    """``None`` when allowed; the answer to send otherwise."""
    decision = limiter.decide(check, cost)
    g.tidegate = decision
    if not decision.allowed:
        return on_denied(decision)

    @after_this_request
    def add_headers(response: Response) -> Response:
        response.headers.update(decision.headers())
        return response

    return None
