"""The settings of a control plane, from the environment (``TIDEGATE_...``) or from code."""

from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from control_plane.oidc_settings import OidcSettings
from control_plane.postgres import libpq_url

MIN_ADMIN_TOKEN_LENGTH = 16


class SettingsError(Exception):
    """A setting is missing or unusable; the message names it."""


class Settings(OidcSettings):
    """Settings of one control-plane process. Times are seconds."""

    model_config = SettingsConfigDict(env_prefix="TIDEGATE_", frozen=True, extra="ignore", hide_input_in_errors=True)

    database_url: SecretStr
    """``postgresql://user:password@host:port/database``, with libpq's ``?sslmode=`` and its files; secret because of
    the password in it."""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    signing_key_file: Path
    """A file that holds the Ed25519 private key, 32 raw bytes in hex, with which revisions are signed."""
    admin_token: SecretStr | None = None
    admin_token_file: Path | None = None
    """The first admin token, directly or in a file: honoured only while no admin token exists."""

    replica: str = Field(default="", max_length=128, pattern=r"^[!-~]*$")
    """What this process is called in ``GET /v1/jobs``; host, process id and four digits by default."""
    heartbeat_s: float = Field(default=5.0, gt=0, le=30)
    """How often a stream says what a node should have; nodes unseen for three of these count as disconnected."""
    shutdown_grace_s: int = Field(default=10, ge=1)
    database_connect_timeout_s: float = Field(default=2.0, gt=0)
    database_command_timeout_s: float = Field(default=10.0, gt=0)
    database_pool_size: int = Field(default=20, ge=2)
    """Connections that are kept; beside them a replica holds three, two to listen and one to lead."""
    max_failed_authentications: int = Field(default=30, ge=1)
    """Wrong credentials a minute that begin alike and come from one address before they are refused for the rest of it;
    of all that come from there five times as many. A right one is let in all the same."""
    quota_rebalancing_s: float = Field(default=300.0, ge=1)
    """How often `auto` shares follow demand."""
    quota_floor: float = Field(default=0.05, ge=0, le=0.5)
    """The fraction of a limit that every region keeps, whatever its demand."""
    quota_damping: float = Field(default=0.5, gt=0, le=1)
    """How much of the way to what demand asks for one run goes."""
    quota_min_change: float = Field(default=0.05, ge=0, le=1)
    """Shares stay unless some region's would move by this fraction of the limit."""
    console: bool = True
    """Serve the console under ``/console``; ``off`` takes it away, with the links that log in at it."""
    usage_hourly_days: int = Field(default=93, ge=32, le=800)
    """How long usage by client and hour is kept; its days stay."""
    usage_daily_months: int = Field(default=25, ge=2, le=120)
    """How long usage by client and day, and everybody's hours together, are kept."""
    webhooks_may_reach_private: bool = False
    """Let usage webhooks go to addresses that are not public."""
    forget_nodes_after_days: int = Field(default=14, ge=1)
    """Nodes that were not seen for so long are no longer listed, but for the last of a region."""
    tombstone_days: int = Field(default=7, ge=1)
    """How long it is remembered which documents are gone; a node that was away for longer gets a snapshot."""
    revision_days: int = Field(default=365, ge=1)
    """How long it is kept what each revision changed."""
    audit_days: int = Field(default=730, ge=31)
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr) -> SecretStr:
        libpq_url(value.get_secret_value())
        return value

    def signing_key(self) -> Ed25519PrivateKey:
        """Read the signing key; :class:`SettingsError` says what is wrong with it, never what is in it."""
        try:
            raw = bytes.fromhex(self.signing_key_file.read_text().strip())
            return Ed25519PrivateKey.from_private_bytes(raw)
        except OSError as error:
            raise SettingsError(f"signing_key_file: cannot be read: {error.strerror}") from error
        except ValueError:
            raise SettingsError("signing_key_file: must hold 32 bytes in hex (64 digits)") from None

    def first_admin_token(self) -> str | None:
        """The first admin token, if one is configured; it may be any string of 16 characters or more."""
        if self.admin_token is not None:
            source, token = "admin_token", self.admin_token.get_secret_value()
        elif self.admin_token_file is not None:
            source = "admin_token_file"
            try:
                token = self.admin_token_file.read_text().strip()
            except OSError as error:
                raise SettingsError(f"admin_token_file: cannot be read: {error.strerror}") from error
            except UnicodeDecodeError:
                raise SettingsError("admin_token_file: holds no token: it is no text") from None
        else:
            return None
        if len(token) < MIN_ADMIN_TOKEN_LENGTH:
            raise SettingsError(f"{source}: needs at least {MIN_ADMIN_TOKEN_LENGTH} characters")
        return token
