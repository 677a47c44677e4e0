"""A node's settings, from the environment: every name is ``TIDEGATE_`` and the field in capitals."""

import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from data_plane.api.caller import Trust
from data_plane.api.forward_auth import DialectName, KeySource
from data_plane.api.rate_limit_headers import ResetFormat

Name = Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,64}$")]
AnonymousOrRefuse = Literal["anonymous", "refuse"]


class Settings(BaseSettings):
    """What one decision node needs to know to serve."""

    model_config = SettingsConfigDict(env_prefix="TIDEGATE_", frozen=True)

    node: Name = Field(default_factory=lambda: socket.gethostname().lower()[:64], description="this node's own name")
    region: Name
    host: str = "127.0.0.1"
    port: int = Field(8101, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    redis_url: SecretStr
    control_plane_url: str
    control_plane_public_key: str = Field(pattern=r"^[0-9a-f]{64}$", description="Ed25519, hex")
    region_credential: SecretStr
    snapshot_file: Path = Path("tidegate-snapshot.msgpack")

    trust: Trust = "token"
    dialect: DialectName = "envoy"
    trusted_hops: int = Field(1, ge=1, le=16)
    key_sources: Annotated[tuple[KeySource, ...], NoDecode] = ("x-api-key", "authorization")
    missing_key: AnonymousOrRefuse = "anonymous"
    unknown_key: AnonymousOrRefuse = "anonymous"
    reset_format: ResetFormat = "epoch"

    @field_validator("key_sources", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value
