"""Who is logged in at the console: sessions in Postgres, remembered for a while in case that goes away."""

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, cast

from control_plane.access.principals import AdminRole, Principal, TokenRole, allows
from control_plane.console import repository
from control_plane.console.models import ConsoleSession
from control_plane.console.repository import IDLE
from control_plane.credentials.tokens.models import Token
from control_plane.credentials.tokens.repository import grants_of
from control_plane.database import Database
from control_plane.errors import UnavailableError
from control_plane.oidc.people import Person
from tidegate.contract.credentials import secret_sha256

NOTED_EVERY = timedelta(minutes=1)
"""``last_seen_at`` is written at most this often."""
MAX_REMEMBERED = 1_000


class Visitor(NamedTuple):
    """Who looks at a page. ``stale``: Postgres is away, and this is what was known before."""

    principal: Principal
    secret: str
    stale: bool = False

    @property
    def csrf(self) -> str:
        """What a form of this session must hold: nobody without the cookie can compute it."""
        return hmac.new(self.secret.encode(), b"tidegate console form", hashlib.sha256).hexdigest()


class May(NamedTuple):
    """``may("operator")``: whether the role is strong enough. No button is shown that would be refused."""

    role: str

    def __call__(self, role: AdminRole) -> bool:
        """Whether it is."""
        return allows(Principal("", self.role), role)  # type: ignore[arg-type]  # a role as it was stored


PrincipalOf = Callable[[Person], Principal | None]


def nobody(_: Person) -> None:
    """Without an identity provider a person may do nothing."""


class Sessions:
    """The sessions as one replica sees them; ``principal_of`` says what a person may do."""

    def __init__(self, database: Database, principal_of: PrincipalOf = nobody) -> None:
        self._database = database
        self._principal_of = principal_of
        self._remembered: OrderedDict[str, tuple[datetime, Principal]] = OrderedDict()

    async def visitor(self, secret: str, *, acts: bool = True) -> Visitor | None:
        """Who holds this session, if it is in force; a person who ``acts`` keeps it so, an open tab does not.

        With Postgres away, who was seen here within the idle time. Raises :class:`UnavailableError` for others.
        """
        sha256, now = secret_sha256(secret), datetime.now(UTC)
        try:
            async with self._database.read() as session:
                row = await repository.session_in_force(session, sha256)
            principal = None if row is None else self._principal(*row, now)
            if row is None or principal is None:
                self.forget(secret)
                return None
            last_seen_at = row[0].last_seen_at
            if acts and now - last_seen_at > NOTED_EVERY:
                async with self._database.transaction() as session:
                    await repository.note_seen(session, sha256)
        except UnavailableError:
            seen = self._remembered.get(sha256)
            if seen is None or now - seen[0] > IDLE:
                raise
            return Visitor(seen[1], secret, stale=True)
        self._remembered[sha256] = (now if acts else last_seen_at, principal)
        self._remembered.move_to_end(sha256)
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return Visitor(principal, secret)

    async def make_link(self, principal: Principal) -> str:
        """The code of a link that logs in once, as the token that asked; it lives for a quarter of an hour."""
        code = secrets.token_urlsafe(32)
        async with self._database.transaction() as session:
            session.add(
                ConsoleSession(
                    sha256=secret_sha256(code),
                    kind="link",
                    token_id=principal.id,
                    token_sha256=principal.credential,
                )
            )
        return code

    async def redeem(self, code: str) -> str | None:
        """Turn a link into a session, once; its secret, or ``None`` for a link that is used, old or unknown."""
        secret = secrets.token_urlsafe(32)
        async with self._database.transaction() as session:
            await repository.delete_ended(session)
            row = await repository.take_link(session, secret_sha256(code))
            if row is None:
                return None
            session.add(
                ConsoleSession(
                    sha256=secret_sha256(secret), kind="session", token_id=row.token_id, token_sha256=row.token_sha256
                )
            )
        return secret

    async def open_for(self, person: Person, lasts_s: int) -> str:
        """The secret of a session of a person, which ends after ``lasts_s`` at the latest."""
        secret = secrets.token_urlsafe(32)
        until_s = datetime.now(UTC).timestamp() + lasts_s
        async with self._database.transaction() as session:
            await repository.delete_ended(session)
            kept = {**person._asdict(), "until_s": until_s}
            session.add(ConsoleSession(sha256=secret_sha256(secret), kind="session", person=kept))
        return secret

    def _principal(self, row: ConsoleSession, token: Token | None, now: datetime) -> Principal | None:
        if row.person is None:
            assert token is not None and row.token_sha256 is not None  # noqa: S101, PT018  as it was looked for
            role = cast("TokenRole", token.role)
            return Principal(token.name, role, token.token_id, row.token_sha256, grants_of(token.scoped_grant))
        kept = row.person
        if now.timestamp() >= kept["until_s"]:
            return None
        return self._principal_of(Person(kept["issuer"], kept["subject"], kept["email"], tuple(kept["groups"])))

    async def end(self, secret: str) -> None:
        """Log out."""
        self.forget(secret)
        async with self._database.transaction() as session:
            await repository.delete_session(session, secret_sha256(secret))

    def forget(self, secret: str) -> None:
        """Let nobody in by this secret without a look at the database."""
        self._remembered.pop(secret_sha256(secret), None)

    async def still_in_force(self, hashes: Collection[str]) -> set[str]:
        """Which of these sessions, by hash, are in force."""
        async with self._database.read() as session:
            rows = await repository.sessions_in_force(session, hashes)
        now = datetime.now(UTC)
        return {row.sha256 for row, token in rows if self._principal(row, token, now) is not None}
