"""What the control plane needs to know of an OpenID Connect provider (``TIDEGATE_OIDC_...``)."""

from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator
from pydantic_settings import BaseSettings

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_Plan = Annotated[str, StringConstraints(max_length=64, pattern=r"^[._-]*[a-z0-9][a-z0-9._-]*$")]
_Prefix = Annotated[str, StringConstraints(max_length=128, pattern=r"^[A-Za-z0-9._:@-]+$")]
"""As the admin API takes them: an empty prefix would be every client's."""


class GroupGrant(BaseModel):
    """The role of a group, everywhere or for some clients only."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: str = Field(min_length=1, max_length=512)
    role: Literal["viewer", "operator", "admin"]
    plans: Annotated[tuple[_Plan, ...], Field(max_length=100)] = ()
    client_prefixes: Annotated[tuple[_Prefix, ...], Field(max_length=100)] = ()

    @model_validator(mode="after")
    def _is_no_scoped_admin(self) -> Self:
        if self.role == "admin" and (self.plans or self.client_prefixes):
            raise ValueError("plans and client_prefixes belong to the roles viewer and operator")
        return self


class OidcSettings(BaseSettings):
    """The provider, the clients of it that this control plane is, and the roles of groups. Times are seconds."""

    public_url: str | None = Field(default=None, max_length=512)
    """Where browsers reach this control plane, as ``https://tidegate.example.com``: the provider sends people back
    to ``/console/oidc/callback`` there."""
    oidc_issuer: str | None = Field(default=None, max_length=512)
    """The provider's issuer, exactly as its discovery document names it; without one there is no OpenID Connect."""
    oidc_name: str = Field(default="single sign-on", min_length=1, max_length=64)
    """What the console's button says behind "Sign in with"."""
    oidc_client_id: str | None = Field(default=None, min_length=1, max_length=512)
    """As whom the console asks the provider; without one people log in by tokens only."""
    oidc_client_secret: SecretStr | None = None
    oidc_client_secret_file: Path | None = None
    """The client's secret, directly or in a file that is read at each sign-in; a public client has none."""
    oidc_scopes: str = Field(default="openid email profile", pattern=r"^openid( [!-~]+)*$")
    """What the console asks the provider for; some want ``groups`` beside it."""
    oidc_audience: str | None = Field(default=None, min_length=1, max_length=512)
    """The audience of JWTs that the admin API takes as bearer tokens; without one it takes none."""
    oidc_groups_claim: str = Field(default="groups", min_length=1, max_length=256)
    """The claim that holds a person's groups, a text or a list of texts; dots lead into objects."""
    oidc_grants: Annotated[tuple[GroupGrant, ...], Field(max_length=1_000)] = ()
    """Which group has which role, as JSON: ``[{"group": "sre", "role": "admin"}, {"group": "acme", "role": "operator",
    "client_prefixes": ["acme-"]}]``. Whoever is in none of them has no access."""
    oidc_ca_file: Path | None = None
    """Certificates of the provider's CA, where the system does not know it."""
    oidc_session_s: int = Field(default=4 * 3600, ge=300, le=12 * 3600)
    """How long a console session lasts before the provider is asked again who is in which group."""

    @model_validator(mode="after")
    def _provider_is_whole(self) -> Self:
        if self.oidc_issuer is None:
            if self.oidc_client_id or self.oidc_audience or self.oidc_grants:
                raise ValueError("TIDEGATE_OIDC_ISSUER is needed beside the other settings of OpenID Connect")
            return self
        if not is_protected(self.oidc_issuer):
            raise ValueError("TIDEGATE_OIDC_ISSUER must be an https:// URL without query")
        if not self.oidc_client_id and not self.oidc_audience:
            raise ValueError("TIDEGATE_OIDC_ISSUER needs TIDEGATE_OIDC_CLIENT_ID, TIDEGATE_OIDC_AUDIENCE, or both")
        if self.oidc_client_id == self.oidc_audience:
            raise ValueError("TIDEGATE_OIDC_AUDIENCE must not be the console's client id, which ID tokens are made for")
        if not self.oidc_grants:
            raise ValueError("TIDEGATE_OIDC_ISSUER needs TIDEGATE_OIDC_GRANTS: without it nobody has access")
        if self.oidc_client_id and (self.public_url is None or not is_protected(self.public_url)):
            raise ValueError("TIDEGATE_OIDC_CLIENT_ID needs TIDEGATE_PUBLIC_URL, an https:// URL without query")
        return self

    def client_secret(self) -> str | None:
        """The client's secret as it is now. Raises :class:`OSError` where its file cannot be read."""
        if self.oidc_client_secret is not None:
            return self.oidc_client_secret.get_secret_value()
        return self.oidc_client_secret_file.read_text().strip() if self.oidc_client_secret_file is not None else None

    @property
    def callback_url(self) -> str:
        """Where the provider sends people back to."""
        return f"{(self.public_url or '').rstrip('/')}/console/oidc/callback"


def is_protected(url: str) -> bool:
    """Whether ``url`` is https, or plain HTTP on this machine, with nothing behind its path."""
    parts = urlsplit(url)
    sound = bool(parts.hostname) and not parts.query and not parts.fragment and parts.username is None
    return sound and (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK))
