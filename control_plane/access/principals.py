"""Who a request comes from, for which clients a role holds, and which role each route needs."""

from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, cast

from fastapi import Depends, Request

from control_plane.errors import ForbiddenError

AdminRole = Literal["viewer", "operator", "admin"]
TokenRole = Literal["viewer", "operator", "admin", "gateway"]
ScopedRole = Literal["viewer", "operator"]
READS = frozenset({"GET", "HEAD"})
_RANK: dict[str, int] = {"viewer": 1, "operator": 2, "admin": 3}


class Grant(NamedTuple):
    """A role for the clients on ``plans`` whose names begin with one of ``client_prefixes``; empty means any."""

    role: ScopedRole
    plans: tuple[str, ...] = ()
    client_prefixes: tuple[str, ...] = ()

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "Grant":
        """A grant as :meth:`stored` wrote it."""
        return cls(cast("ScopedRole", stored["role"]), tuple(stored["plans"]), tuple(stored["client_prefixes"]))

    def stored(self) -> dict[str, Any]:
        """The grant as JSON."""
        return {"role": self.role, "plans": list(self.plans), "client_prefixes": list(self.client_prefixes)}

    def covers_client(self, client: str, plans: Collection[str]) -> bool:
        """Whether it holds for ``client``, which is on each of ``plans`` before or after the request."""
        named = not self.client_prefixes or client.startswith(self.client_prefixes)
        planned = not self.plans or (bool(plans) and set(plans) <= set(self.plans))
        return named and planned

    def covers_plan(self, plan: str) -> bool:
        """Whether it holds for the plan itself, and with that for every client on it."""
        return not self.client_prefixes and plan in self.plans

    def __str__(self) -> str:
        """The scope for a sentence: ``clients named acme-* on the plan free``."""
        names = " or ".join(f"{prefix}*" for prefix in self.client_prefixes)
        named = f"clients named {names}" if names else "clients"
        return f"{named} on the plan {' or '.join(self.plans)}" if self.plans else named


class Principal(NamedTuple):
    """An authenticated caller: a token or a person with its role, or a region (whose ``role`` is ``region``).

    ``scoped`` is the role of whoever has ``grants`` alone: it allows nothing until ``scope.py`` found what they cover.
    """

    name: str
    role: Literal["viewer", "operator", "admin", "gateway", "region", "scoped"]
    id: str = ""
    """A token's id: names come again after a revocation, ids do not."""
    credential: str = ""
    """The hash of the secret that was shown: a stream or a console session that it opened ends with it."""
    grants: tuple[Grant, ...] = ()
    """Roles for some clients only, beside ``role``."""

    @property
    def described(self) -> str:
        """What the caller may do, for people: ``viewer, operator for clients named acme-*``."""
        everywhere = [] if self.role == "scoped" else [self.role]
        return ", ".join(everywhere + [f"{grant.role} for {grant}" for grant in self.grants])


def principal_of(request: Request) -> Principal:
    """Who the authentication middleware found."""
    principal: Principal = request.scope["principal"]
    return principal


Caller = Annotated[Principal, Depends(principal_of)]


def allows(caller: Principal, role: AdminRole) -> bool:
    """Whether ``caller`` has ``role`` or a stronger one."""
    return _RANK.get(caller.role, 0) >= _RANK[role]


def strongest(roles: Iterable[str]) -> str:
    """The strongest of ``roles``; ``scoped`` where none allows anything."""
    return max(roles, key=lambda role: _RANK.get(role, 0), default="scoped")


def require(caller: Principal, role: AdminRole) -> None:
    """Raise :class:`ForbiddenError` unless ``caller`` has ``role`` or a stronger one."""
    if not allows(caller, role):
        raise ForbiddenError(f"This needs the role {role}; yours is {caller.role}.")


async def by_method(request: Request, caller: Caller) -> None:
    """Reading needs a viewer, writing an operator: the rule of every admin route."""
    require(caller, "viewer" if request.method in READS else "operator")


async def reading_only(caller: Caller) -> None:
    """For a POST that only asks: a viewer may. Before the body is read, so that nobody else learns what is wrong."""
    require(caller, "viewer")


async def admin_only(caller: Caller) -> None:
    """For tokens and region credentials."""
    require(caller, "admin")


async def region_only(caller: Caller) -> None:
    """For what nodes call."""
    if caller.role != "region":
        raise ForbiddenError("This needs a region's credential.")
