"""The provider as it is on the network: its discovery document, its keys, and codes turned into ID tokens."""

import asyncio
import ssl
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import msgspec
import structlog
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import JWKRegistry, Key, KeySet

from control_plane.errors import UnauthenticatedError, UnavailableError
from control_plane.oidc.claims import key_id
from control_plane.oidc_settings import OidcSettings, is_protected

FRESH_S = 300.0
"""How often keys are read anew; one that the provider took back is believed for so long at most."""
STALE_S = 3_600.0
"""How long they are believed while the provider does not answer; then nobody is let in by them."""
COOLDOWN_S = 5.0
"""How often a token that names an unknown key makes the keys be read."""
RETRY_S = 15.0
TIMEOUT_S = 5.0
MAX_BYTES = 1024 * 1024
_log = structlog.stdlib.get_logger("tidegate.oidc")


class ProviderMetadata(msgspec.Struct, frozen=True):
    """What is used of a discovery document (OpenID Connect Discovery 1.0, section 3)."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class Provider:
    """One provider. Raises :class:`UnavailableError` where it does not answer, or says what cannot be used."""

    def __init__(self, settings: OidcSettings, now: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._issuer = settings.oidc_issuer or ""
        self._now = now
        self._tls: ssl.SSLContext | None = None
        self._metadata: ProviderMetadata | None = None
        self._keys: KeySet | None = None
        self._keys_read_s = self._asked_s = float("-inf")
        self._reading = asyncio.Lock()

    async def run(self) -> None:
        """Keep metadata and keys fresh until cancelled."""
        while True:
            async with self._reading:
                await self._refresh()
            await asyncio.sleep(FRESH_S if self._fresh(FRESH_S) else RETRY_S)

    async def keys_for(self, token: str) -> KeySet:
        """The provider's keys, among them the one that ``token`` names, as far as there is one."""
        kid = key_id(token)
        if not (self._fresh(STALE_S) and self._knows(kid)):
            async with self._reading:
                if not (self._fresh(STALE_S) and self._knows(kid)) and self._now() - self._asked_s >= COOLDOWN_S:
                    await self._refresh()
        if self._keys is None or not self._fresh(STALE_S):
            raise UnavailableError("The identity provider's keys cannot be read, so nobody is let in by it.")
        return self._keys

    async def metadata(self) -> ProviderMetadata:
        """The discovery document, as it was read last."""
        if self._metadata is None:
            self._metadata = await self._discover()
        return self._metadata

    async def exchange(self, code: str, verifier: str) -> tuple[str, str]:
        """The ID token and the access token for an authorization code, by PKCE (RFC 7636).

        Raises :class:`UnauthenticatedError` for a code that the provider does not take.
        """
        settings, metadata = self._settings, await self.metadata()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": settings.callback_url,
            "client_id": settings.oidc_client_id or "",
            "code_verifier": verifier,
        }
        try:
            secret = settings.client_secret()
        except (OSError, UnicodeDecodeError) as error:
            raise UnavailableError("The secret for the identity provider cannot be read.") from error
        auth = None
        if secret is not None and "client_secret_basic" in metadata.token_endpoint_auth_methods_supported:
            auth = httpx.BasicAuth(_encoded(settings.oidc_client_id or ""), _encoded(secret))
        elif secret is not None:
            form["client_secret"] = secret
        status, body = await self._ask("POST", metadata.token_endpoint or "", data=form, auth=auth)
        if status in {400, 401}:
            _log.warning("the identity provider refused a sign-in", error=_error_of(body))
            raise UnauthenticatedError(
                "The identity provider refused this sign-in: it was used already, or is too old."
            )
        answer = _object(status, body)
        tokens = answer.get("id_token"), answer.get("access_token")
        if not isinstance(tokens[0], str) or not isinstance(tokens[1], str):
            raise UnavailableError("The identity provider answered a sign-in without an ID token.")
        return tokens[0], tokens[1]

    async def userinfo(self, access_token: str, subject: str) -> dict[str, Any]:
        """What the provider says of ``subject`` beside the ID token; nothing where it has no such endpoint."""
        url = (await self.metadata()).userinfo_endpoint
        if url is None:
            return {}
        answer = _object(*await self._ask("GET", url, headers={"Authorization": f"Bearer {access_token}"}))
        if answer.get("sub") != subject:
            raise UnauthenticatedError("The identity provider answered about somebody else.")
        return answer

    def _fresh(self, most_s: float) -> bool:
        return self._now() - self._keys_read_s < most_s

    def _knows(self, kid: str | None) -> bool:
        return self._keys is not None and (kid is None or any(key.kid == kid for key in self._keys))

    async def _refresh(self) -> None:
        self._asked_s = self._now()
        try:
            metadata = await self._discover()
            keys = _keys_of(_object(*await self._ask("GET", metadata.jwks_uri)))
        except UnavailableError as error:
            _log.warning("the identity provider cannot be asked", why=str(error), cause=repr(error.__cause__))
            return
        self._metadata, self._keys, self._keys_read_s = metadata, keys, self._now()

    async def _discover(self) -> ProviderMetadata:
        url = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
        found = _object(*await self._ask("GET", url))
        try:
            metadata = msgspec.convert(found, ProviderMetadata)
        except msgspec.ValidationError as error:
            raise UnavailableError("The identity provider's discovery document cannot be used.") from error
        if metadata.issuer != self._issuer:
            raise UnavailableError("The identity provider calls itself by another issuer than TIDEGATE_OIDC_ISSUER.")
        ends = (metadata.jwks_uri, metadata.authorization_endpoint, metadata.token_endpoint, metadata.userinfo_endpoint)
        if not all(is_protected(end.partition("?")[0]) for end in ends if end is not None):
            raise UnavailableError("The identity provider has endpoints without TLS.")
        if self._settings.oidc_client_id and not (metadata.authorization_endpoint and metadata.token_endpoint):
            raise UnavailableError("The identity provider signs nobody in: it has no authorization endpoint.")
        return metadata

    async def _ask(self, method: str, url: str, **how: Any) -> tuple[int, bytes]:
        """Status and body; redirects are not followed, and a body ends at 1 MiB."""
        try:
            if self._tls is None:
                self._tls = ssl.create_default_context(cafile=self._settings.oidc_ca_file)
            async with (
                asyncio.timeout(TIMEOUT_S),
                httpx.AsyncClient(verify=self._tls, timeout=TIMEOUT_S, follow_redirects=False) as client,
                client.stream(method, url, **how) as response,
            ):
                body = b""
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > MAX_BYTES:
                        raise UnavailableError("The identity provider answers with more than 1 MiB.")
                return response.status_code, body
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
            raise UnavailableError("The identity provider does not answer.") from error


def _object(status: int, body: bytes) -> dict[str, Any]:
    if status != 200:
        raise UnavailableError(f"The identity provider answers {status}.")
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise UnavailableError("The identity provider's answer is no JSON.") from error
    if not isinstance(found, dict):
        raise UnavailableError("The identity provider's answer is no JSON object.")
    return found


def _keys_of(document: Mapping[str, Any]) -> KeySet:
    """The public keys for signatures. Others are left out, as are RSA keys that are too short."""
    given = document.get("keys")
    keys = [key for one in (given if isinstance(given, list) else []) if (key := _key_of(one)) is not None]
    if not keys:
        raise UnavailableError("The identity provider publishes no key that can be used.")
    return KeySet(keys)


def _key_of(one: object) -> Key | None:
    if not isinstance(one, dict) or one.get("kty") not in {"RSA", "EC", "OKP"} or one.get("use", "sig") != "sig":
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", SecurityWarning)  # RSA with less than 2048 bits
            return JWKRegistry.import_key(one)
    except (JoseError, SecurityWarning, ValueError, TypeError, KeyError):
        return None


def _error_of(body: bytes) -> str:
    """The error's code alone: descriptions may hold what was sent."""
    try:
        code = msgspec.json.decode(body)["error"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return "unknown"
    return code[:64] if isinstance(code, str) and code.isidentifier() else "unknown"


def _encoded(text: str) -> str:
    """As RFC 6749, section 2.3.1, wants client id and secret in an Authorization header."""
    return str(httpx.QueryParams({"": text}))[1:]
