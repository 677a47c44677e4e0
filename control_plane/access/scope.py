"""The one place where roles that hold for some clients only are enforced: before any route runs, also the console's."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import NamedTuple, cast

from fastapi import Request
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.access.principals import READS, AdminRole, Grant, Principal, strongest
from control_plane.database import Database
from control_plane.errors import ForbiddenError

PlanOf = Callable[[AsyncSession, str], Awaitable[str | None]]
CLIENTS = "/v1/clients"
ASKED_BY_CLIENT = frozenset({"/v1/usage", "/v1/denials"})
"""Reads whose query may name the one client that they are about."""
OPEN_TO_ALL = frozenset({"/v1/console/links"})
"""Routes that give a caller nothing but a session with the same grants."""


class _Client(NamedTuple):
    """The client that a request is about, and the plans that it is on before and after it."""

    client: str
    plans: Collection[str]


class ScopeGuard:
    """A dependency of the whole application: raises a scoped caller's role where a grant covers the request.

    A caller with grants begins with the role that it has everywhere, so what is not named here stays closed. Raises
    :class:`ForbiddenError` with one text for clients that exist and those that do not.
    """

    def __init__(self, plan_of: PlanOf) -> None:
        self._plan_of = plan_of

    async def __call__(self, request: Request) -> None:
        """Put the caller's role for this request into ``scope["principal"]``."""
        caller: Principal | None = request.scope.get("principal")
        if caller is None or not caller.grants:
            return
        path = request.scope["path"]
        if path == CLIENTS and request.method in READS:
            self._lists_clients(request, caller)
            return
        covering = caller.grants if path in OPEN_TO_ALL else await self._covering(request, caller.grants)
        role = strongest((caller.role, *(grant.role for grant in covering)))
        if role == "scoped":
            raise ForbiddenError(f"You may see and change {_scope_of(caller.grants)}; this is about something else.")
        request.scope["principal"] = caller._replace(role=cast("AdminRole", role), grants=())

    def _lists_clients(self, request: Request, caller: Principal) -> None:
        """The list holds what the grants cover: they stay for its query, unless the caller may read everything."""
        role = caller.role if caller.role != "scoped" else "viewer"
        grants = caller.grants if caller.role == "scoped" else ()
        request.scope["principal"] = caller._replace(role=role, grants=grants)

    async def _covering(self, request: Request, grants: Sequence[Grant]) -> list[Grant]:
        plan = request.path_params.get("plan")
        if plan is not None:
            other = (await _written(request)).get("plan")
            plans = {plan, other if isinstance(other, str) else plan}
            return [grant for grant in grants if all(map(grant.covers_plan, plans))]
        about = await self._client(request, grants)
        return [] if about is None else [grant for grant in grants if grant.covers_client(*about)]

    async def _client(self, request: Request, grants: Sequence[Grant]) -> _Client | None:
        written = await _written(request)
        client = request.path_params.get("client", written.get("client"))
        if request.scope["path"] in ASKED_BY_CLIENT:
            named = request.query_params.getlist("client")
            client = named[0] if len(named) == 1 else None
        if not isinstance(client, str):
            return None
        written_plan = written.get("plan")
        plans = {written_plan} if isinstance(written_plan, str) else set()
        if any(grant.plans for grant in grants):
            database: Database = request.state.database
            async with database.read(reserved=True) as session:
                plan = await self._plan_of(session, client)
            plans |= set() if plan is None else {plan}
        return _Client(client, plans)


async def _written(request: Request) -> dict[str, object]:
    """What the body says of the client or plan that the request is about: it may name another plan."""
    about = request.path_params.keys() & {"client", "plan"} or request.scope["path"] == CLIENTS
    if request.method in READS or not about:
        return {}
    try:
        body = await request.json()
    except (ValueError, RecursionError):  # there is none, or the route refuses it
        return {}
    return body if isinstance(body, dict) else {}


def _scope_of(grants: Sequence[Grant]) -> str:
    return ", ".join(sorted({str(grant) for grant in grants}))
