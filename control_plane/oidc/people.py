"""Who somebody is by a provider's claims, and what their groups let them do. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from control_plane.access.principals import AdminRole, Grant, Principal, ScopedRole, strongest
from control_plane.errors import ForbiddenError
from control_plane.oidc_settings import GroupGrant

MAX_SUBJECT = 255
MAX_EMAIL = 254


class Person(NamedTuple):
    """A subject of an issuer with those of its groups that give a role; ``email`` as far as the issuer verified it."""

    issuer: str
    subject: str
    email: str | None
    groups: tuple[str, ...]

    @property
    def name(self) -> str:
        """As the history and the audit log name a person: ``anna@example.com <https://issuer.example#8f3c>``."""
        return f"{self.email or self.subject} <{self.issuer}#{self.subject}>"


class People:
    """The people of one issuer, by the mapping of its groups to roles."""

    def __init__(self, issuer: str, groups_claim: str, grants: Sequence[GroupGrant]) -> None:
        self._issuer = issuer
        self._groups_claim = groups_claim
        self._grants = grants

    def person(self, claims: Mapping[str, Any]) -> Person:
        """Who verified claims speak of. Raises :class:`ForbiddenError` for whoever is in no group with a role."""
        subject = claims["sub"]
        if not subject or len(subject) > MAX_SUBJECT or not subject.isprintable():
            raise ForbiddenError("The provider names a subject that cannot be written into the audit log.")
        found = self.groups(claims)
        if found is None:
            raise ForbiddenError(f"The provider sent no claim {self._groups_claim}, so you have no role here.")
        mine = tuple(sorted({grant.group for grant in self._grants} & found))
        if not mine:
            raise ForbiddenError("None of your groups has a role here.")
        return Person(self._issuer, subject, _email(claims), mine)

    def groups(self, claims: Mapping[str, Any]) -> set[str] | None:
        """The groups that claims hold, or ``None`` where the claim is missing."""
        if self._groups_claim == "email":
            email = _email(claims)  # no group of whoever only says that an address is theirs
            return None if email is None else {email}
        value = claims.get(self._groups_claim)
        if value is None:
            value = _within(claims, self._groups_claim.split("."))
        if isinstance(value, str):
            return {value}
        return {one for one in value if isinstance(one, str)} if isinstance(value, list) else None

    def principal(self, person: Person) -> Principal | None:
        """What the person may do by the mapping of today; ``None`` for nothing, or where another issuer vouched."""
        grants = [grant for grant in self._grants if grant.group in person.groups]
        if person.issuer != self._issuer or not grants:
            return None
        scoped = [grant for grant in grants if grant.plans or grant.client_prefixes]
        role = strongest(grant.role for grant in grants if grant not in scoped)
        return Principal(
            person.name,
            cast("AdminRole", role),
            grants=tuple(Grant(cast("ScopedRole", g.role), g.plans, g.client_prefixes) for g in scoped),
        )


def _within(claims: Mapping[str, Any], path: Sequence[str]) -> Any:
    value: Any = claims
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _email(claims: Mapping[str, Any]) -> str | None:
    email = claims.get("email")
    sound = isinstance(email, str) and email.isprintable() and len(email) <= MAX_EMAIL and not set(email) & set("<> ")
    return email if sound and claims.get("email_verified") is True else None
