"""Roles that hold for some clients only: those of certain plans, or whose names begin in a certain way."""

from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple, cast

ScopedRole = Literal["viewer", "operator"]


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
