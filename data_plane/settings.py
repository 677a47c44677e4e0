"""Settings of nodes and agents, from the environment: every name is ``TIDEGATE_`` and the field in capitals."""

import re
import socket
import ssl
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from data_plane.http.caller import Trust
from data_plane.http.forward_auth import DialectName, KeySource
from data_plane.http.rate_limit_headers import ResetFormat
from data_plane.process import TlsFiles
from data_plane.rls.mapping import RlsMapping
from data_plane.store.redis.credentials import Guarded, PasswordFile, load_provider
from data_plane.store.redis.settings import RedisSettings

Name = Annotated[str, Field(pattern=r"^[a-z0-9._-]{1,64}$")]
AnonymousOrRefuse = Literal["anonymous", "refuse"]


def _readable(value: Path) -> Path:
    try:
        value.read_bytes()
    except OSError as error:
        raise ValueError(f"{value}: {error.strerror}") from None
    return value


def _a_ca(value: Path) -> Path:
    try:
        ssl.create_default_context(cafile=value)
    except ssl.SSLError:
        raise ValueError(f"{value} holds no certificate (PEM)") from None
    return value


def _parts(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _a_mapping(value: Path) -> Path:
    RlsMapping.from_file(value)  # so that a mistake is reported at the start
    return value


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


ReadableFile = Annotated[Path, AfterValidator(_readable)]
CaFile = Annotated[Path, AfterValidator(_readable), AfterValidator(_a_ca)]
MappingFile = Annotated[Path, AfterValidator(_a_mapping)]
Texts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parts)]
"""Several values, with commas between them."""


class RegionSettings(BaseSettings):
    """Settings that nodes and agents share."""

    model_config = SettingsConfigDict(env_prefix="TIDEGATE_", frozen=True, hide_input_in_errors=True)

    needs: ClassVar[tuple[tuple[str, str], ...]] = (
        ("tls_key_file", "tls_cert_file"),
        ("tls_client_ca_file", "tls_cert_file"),
        ("redis_key_file", "redis_cert_file"),
    )
    """Settings that need another one; without it a process would run without the TLS that it should require."""
    certificates: ClassVar[tuple[str, ...]] = ("tls_cert_file", "redis_cert_file")

    node: Name = Field(default_factory=lambda: socket.gethostname().lower()[:64], description="this process's own name")
    region: Name
    host: str = "127.0.0.1"
    health_port: int | None = Field(
        None, ge=1, le=65535, description="/healthz, /readyz and /metrics in plain HTTP on a port of their own"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    drain_s: float = Field(5.0, ge=0, le=300, description="how long it still answers after SIGTERM, not ready any more")

    tls_cert_file: ReadableFile | None = Field(None, description="serve HTTPS with this certificate (PEM)")
    tls_key_file: ReadableFile | None = None
    tls_client_ca_file: CaFile | None = Field(None, description="ask callers for a certificate of this CA (mTLS)")

    redis_url: SecretStr
    redis_password_file: ReadableFile | None = Field(None, description="the store's password, read again as it changes")
    redis_credentials: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="module:callable that makes a CredentialProvider of redis-py, instead of a password",
    )
    redis_shape: Literal["standalone", "sentinel", "cluster"] = "standalone"
    redis_sentinels: Texts = Field((), description="host:port,host:port")
    redis_master_name: str = ""
    redis_sentinel_username: str | None = None
    redis_sentinel_password: SecretStr | None = None
    redis_cluster_nodes: Texts = Field((), description="further seeds, host:port,...")
    redis_ca_file: CaFile | None = None
    redis_cert_file: ReadableFile | None = None
    redis_key_file: ReadableFile | None = None
    redis_deadline_ms: float = Field(
        25.0, gt=0, description="a decision not answered by then is made without the store"
    )

    usage_stream_max_mb: int = Field(256, ge=1, description="what waiting usage may take of the store's memory")

    control_plane_url: str = Field(pattern=r"^https?://[^/?#\s]")
    control_plane_public_key: str = Field(pattern=r"^[0-9a-f]{64}$", description="Ed25519, hex")
    control_plane_ca_file: ReadableFile | None = Field(None, description="its certificate must come from this CA (PEM)")
    region_credential: SecretStr
    snapshot_file: Path = Path("tidegate-snapshot.msgpack")

    def require_consistent(self) -> None:
        """Raise ``ValueError`` if settings of this kind of process contradict each other."""

    def callers_tls(self) -> TlsFiles | None:
        """What callers are shown, if they are served over TLS."""
        cert = self.tls_cert_file
        return None if cert is None else TlsFiles(cert, self.tls_key_file, self.tls_client_ca_file)

    def control_plane_tls(self) -> TlsFiles:
        """By what the control plane is believed."""
        return TlsFiles(ca=self.control_plane_ca_file)

    def store_settings(self) -> RedisSettings:
        """The store's part, as its adapter takes it."""
        password = self.redis_sentinel_password
        return RedisSettings(
            url=self.redis_url.get_secret_value(),
            shape=self.redis_shape,
            credentials=self._store_credentials(),
            sentinels=tuple(_address(text) for text in self.redis_sentinels),
            master_name=self.redis_master_name,
            sentinel_username=self.redis_sentinel_username,
            sentinel_password=password.get_secret_value() if password is not None else None,
            cluster_nodes=tuple(_address(text) for text in self.redis_cluster_nodes),
            tls_ca_file=self.redis_ca_file,
            tls_cert_file=self.redis_cert_file,
            tls_key_file=self.redis_key_file,
            deadline_ms=self.redis_deadline_ms,
        )

    def _store_credentials(self) -> Guarded | None:
        if self.redis_credentials is not None:
            return Guarded(load_provider(self.redis_credentials))
        if self.redis_password_file is None:
            return None
        user = urlsplit(self.redis_url.get_secret_value()).username
        return Guarded(PasswordFile(self.redis_password_file, None if not user else unquote(user)))

    @field_validator("redis_sentinels", "redis_cluster_nodes")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            host, separator, port = address.rpartition(":")
            if not (separator and host and port.isascii() and port.isdigit()):
                raise ValueError(f"{address!r} is not host:port")
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_a_store(cls, value: SecretStr) -> SecretStr:
        try:
            url = urlsplit(value.get_secret_value())
            known = url.scheme in {"redis", "rediss", "unix"} and url.port != 0
        except ValueError:
            known = False
        if not known:
            raise ValueError("must be redis://host:port, rediss://host:port or unix://path")
        return value

    @field_validator("region_credential")
    @classmethod
    def _can_go_in_a_header(cls, value: SecretStr) -> SecretStr:
        if not (value.get_secret_value().isascii() and value.get_secret_value().isprintable()):
            raise ValueError("must be one line of ASCII characters")
        return value

    @model_validator(mode="after")
    def _agree(self) -> Self:
        self.require_consistent()
        for name, other in self.needs:
            if getattr(self, name) is not None and getattr(self, other) is None:
                raise ValueError(f"TIDEGATE_{name.upper()} needs TIDEGATE_{other.upper()}")
        for name in self.certificates:
            cert = getattr(self, name)
            if cert is not None:
                key = getattr(self, name.replace("cert", "key"))
                try:
                    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
                except (ssl.SSLError, OSError):
                    raise ValueError(
                        f"TIDEGATE_{name.upper()}: holds no certificate (PEM), or its key is not the one given"
                    ) from None
        ways = (self.redis_password_file, self.redis_credentials, urlsplit(self.redis_url.get_secret_value()).password)
        if sum(bool(way) for way in ways) > 1:
            raise ValueError(
                "The store's login comes from one place: a password in TIDEGATE_REDIS_URL, TIDEGATE_REDIS_PASSWORD_FILE"
                " or TIDEGATE_REDIS_CREDENTIALS"
            )
        try:
            self._store_credentials()
        except ValueError as error:
            raise ValueError(f"TIDEGATE_REDIS_CREDENTIALS: {error}") from None
        if self.redis_shape == "sentinel" and not (self.redis_sentinels and self.redis_master_name):
            raise ValueError(
                "TIDEGATE_REDIS_SHAPE sentinel needs TIDEGATE_REDIS_SENTINELS and TIDEGATE_REDIS_MASTER_NAME"
            )
        return self


class Settings(RegionSettings):
    """Settings of a decision node."""

    port: int = Field(8101, ge=0, le=65535)

    ready_without_store: bool = Field(
        False, description="ready before the store was ever reached: decides by on_store_failure from the start"
    )

    denials_max_mb: int = Field(
        32, ge=0, le=4_096, description="what denials that can be found may take of the store's memory; 0 keeps none"
    )
    log_denials_per_s: float = Field(10.0, ge=0, le=1_000, description="a sample of denials for the log; 0 logs none")
    traces_url: str | None = Field(None, pattern=r"^https?://", description="OTLP over HTTP: .../v1/traces")
    traces_share: float = Field(0.01, ge=0, le=1, description="of decisions that are traced")
    traces_follow_caller: bool = Field(False, description="trace every decision whose caller samples its trace")

    trust: Trust = "token"
    dialect: DialectName = "envoy"
    trusted_hops: int = Field(1, ge=1, le=16)
    key_sources: Annotated[tuple[KeySource, ...], NoDecode, BeforeValidator(_parts)] = ("x-api-key", "authorization")
    cors_origins: Texts = Field(
        (), description="whose pages may read /v1/me/limits in a browser: https://app.example,... or *"
    )
    missing_key: AnonymousOrRefuse = "anonymous"
    unknown_key: AnonymousOrRefuse = "anonymous"
    reset_format: ResetFormat = "epoch"

    rls_port: int | None = Field(None, ge=0, le=65535, description="Envoy's rate limit service over gRPC")
    rls_mapping_file: MappingFile | None = Field(None, description="what descriptors mean (TOML)")

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not re.fullmatch(r"https?://[^/?#\s]+", origin):
                raise ValueError(f"{origin!r} is not an origin: https://host, without a path")
        return value

    def require_consistent(self) -> None:
        """Raise ``ValueError`` if the rate limit service lacks a setting."""
        if self.rls_port is not None and self.tls_cert_file is not None and self.tls_key_file is None:
            raise ValueError("TIDEGATE_RLS_PORT with TIDEGATE_TLS_CERT_FILE needs TIDEGATE_TLS_KEY_FILE")


class AgentSettings(RegionSettings):
    """Settings of a region agent."""

    needs: ClassVar[tuple[tuple[str, str], ...]] = (*RegionSettings.needs, ("peers_key_file", "peers_cert_file"))
    certificates: ClassVar[tuple[str, ...]] = (*RegionSettings.certificates, "peers_cert_file")

    port: int = Field(8201, ge=0, le=65535, description="where agents of other regions reach it")
    snapshot_file: Path = Path("tidegate-agent-snapshot.msgpack")

    peers_ca_file: CaFile | None = Field(None, description="other regions' certificates must come from this CA (PEM)")
    peers_cert_file: ReadableFile | None = Field(None, description="the certificate that other regions ask for (mTLS)")
    peers_key_file: ReadableFile | None = None

    load_servers: Texts = Field(
        (), description="Prometheus-compatible servers that backends' pulls may name: name=http://host:port,..."
    )

    @field_validator("load_servers")
    @classmethod
    def _are_servers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for server in value:
            if not re.fullmatch(r"[a-z0-9._-]{1,64}=https?://[^/?#\s]+(/[^?#\s]*)?", server):
                raise ValueError("a server is name=http://host:port or name=https://host:port")
        return value

    def peers_tls(self) -> TlsFiles:
        """What peers are shown, and by what they are believed."""
        return TlsFiles(self.peers_cert_file, self.peers_key_file, self.peers_ca_file)

    def load_server_urls(self) -> dict[str, str]:
        """The URL of each server in ``load_servers``."""
        return {name: url for name, _, url in (server.partition("=") for server in self.load_servers)}
