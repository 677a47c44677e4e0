"""The sign-in of a person (authorization code with PKCE), and the bearer tokens of CI."""

import base64
import hashlib
import hmac
import secrets
import time
from typing import NamedTuple
from urllib.parse import urlencode

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from control_plane.access.principals import Principal
from control_plane.errors import ForbiddenError, UnauthenticatedError, UnavailableError
from control_plane.oidc.claims import Claims, verified
from control_plane.oidc.people import People, Person
from control_plane.oidc.provider import Provider
from control_plane.settings import Settings

SIGN_IN_LASTS_S = 600
AT_ONCE = 20
"""Sign-ins that a replica finishes at a time: each asks the provider."""
_log = structlog.stdlib.get_logger("tidegate.oidc")


class Begun(NamedTuple):
    """A sign-in that begins: where the browser goes, and the cookie that it comes back with."""

    url: str
    cookie: str


class OpenIdConnect:
    """What the console and the admin API know of the provider.

    Nothing is stored of a sign-in that began. Its state, nonce and PKCE verifier follow from the browser's cookie and a
    key of the control plane. So a state fits one browser, and any replica can finish what another began.
    """

    def __init__(self, settings: Settings) -> None:
        self.provider = Provider(settings)
        self.people = People(settings.oidc_issuer or "", settings.oidc_groups_claim, settings.oidc_grants)
        self.name = settings.oidc_name
        self.session_s = settings.oidc_session_s
        self.for_people = settings.oidc_client_id is not None
        self._settings = settings
        self._key = _derived(settings.signing_key())
        self._finishing = 0

    async def begin(self, after: str) -> Begun:
        """Send a browser to the provider, and to ``after`` (a path of the console) once it comes back."""
        endpoint = (await self.provider.metadata()).authorization_endpoint or ""
        target = base64.urlsafe_b64encode(after.encode()).decode()
        cookie = f"{int(time.time())}.{secrets.token_urlsafe(32)}.{target}"
        challenge = base64.urlsafe_b64encode(hashlib.sha256(self._part("verifier", cookie).encode()).digest())
        query = {
            "response_type": "code",
            "client_id": self._settings.oidc_client_id or "",
            "redirect_uri": self._settings.callback_url,
            "scope": self._settings.oidc_scopes,
            "state": self._part("state", cookie),
            "nonce": self._part("nonce", cookie),
            "code_challenge": challenge.decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        return Begun(f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}", cookie)

    async def finish(self, cookie: str, state: str, code: str, issuer: str | None) -> tuple[Person, str]:
        """Who signed in, and where they wanted to go.

        Raises :class:`UnauthenticatedError`, :class:`ForbiddenError` for whoever has no role, and
        :class:`UnavailableError`.
        """
        if not hmac.compare_digest(self._part("state", cookie).encode(), state.encode()):
            raise UnauthenticatedError("This sign-in did not begin in this browser. Begin again.")
        begun, _, target = cookie.split(".")
        if not 0 <= time.time() - int(begun) <= SIGN_IN_LASTS_S:
            raise UnauthenticatedError("This sign-in took longer than ten minutes. Begin again.")
        if issuer is not None and issuer != self._settings.oidc_issuer:  # RFC 9207
            raise UnauthenticatedError("Another identity provider answered. Begin again.")
        if self._finishing >= AT_ONCE:
            raise UnavailableError("Too many people sign in at this moment. Try again.")
        self._finishing += 1
        try:
            claims = await self._claims(code, cookie)
            person = self.people.person(claims)
        except (UnauthenticatedError, ForbiddenError) as error:
            _log.warning("a sign-in was refused", why=str(error))
            raise
        finally:
            self._finishing -= 1
        return person, base64.urlsafe_b64decode(target).decode()

    async def bearer(self, token: str) -> Principal:
        """Whose JWT this is.

        Raises :class:`UnauthenticatedError`, :class:`ForbiddenError` for whoever has no role, and
        :class:`UnavailableError`.
        """
        audience = self._settings.oidc_audience
        if audience is None:
            raise UnauthenticatedError("JWTs are not taken here: TIDEGATE_OIDC_AUDIENCE is not set.")
        try:
            person = self.people.person(await self._verified(token, audience))
        except (UnauthenticatedError, ForbiddenError) as error:
            _log.info("a bearer token was refused", why=str(error))
            raise
        return self.principal(person)

    def principal(self, person: Person) -> Principal:
        """What a person may do. Raises :class:`ForbiddenError` for nothing."""
        principal = self.people.principal(person)
        if principal is None:
            raise ForbiddenError("None of your groups has a role here.")
        return principal

    async def _claims(self, code: str, cookie: str) -> Claims:
        id_token, access_token = await self.provider.exchange(code, self._part("verifier", cookie))
        client_id = self._settings.oidc_client_id or ""
        claims = await self._verified(id_token, client_id)
        nonce = claims.get("nonce")
        if not isinstance(nonce, str) or not hmac.compare_digest(self._part("nonce", cookie).encode(), nonce.encode()):
            raise UnauthenticatedError("The identity provider answered another sign-in. Begin again.")
        if claims.get("azp", client_id) != client_id:
            raise UnauthenticatedError("The identity provider answered another application.")
        if self.people.groups(claims) is None:
            claims = {**await self.provider.userinfo(access_token, claims["sub"]), **claims}
        return claims

    async def _verified(self, token: str, audience: str) -> Claims:
        keys = await self.provider.keys_for(token)
        return verified(token, keys, issuer=self._settings.oidc_issuer or "", audience=audience, now_s=time.time())

    def _part(self, name: str, cookie: str) -> str:
        derived = hmac.new(self._key, f"{name}\0{cookie}".encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(derived).decode().rstrip("=")


def _derived(signing_key: Ed25519PrivateKey) -> bytes:
    derive = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"tidegate sign-ins")
    return derive.derive(signing_key.private_bytes_raw())
