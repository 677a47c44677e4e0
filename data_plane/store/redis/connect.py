"""Opening a pipelined connection: resolve the address, log in, check the server, load the script."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple, cast

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.driver_info import DriverInfo
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)

from data_plane.store.redis.calls import Link
from data_plane.store.redis.credentials import Login
from data_plane.store.redis.server import ServerFacts, read_info, require_fit
from data_plane.store.redis.settings import RedisSettings
from data_plane.store.redis.slots import SlotRange, read_slots
from data_plane.store.redis.status import Reason, classify

Address = tuple[str, int]
Resolve = Callable[[], Awaitable[Address | None]]
"""Where to connect now; ``None`` means to the address in the URL."""


Reply = Any
"""What a command answers depends on the command."""


Join = Callable[[Callable[..., Awaitable[Reply]], ServerFacts], Awaitable[None]]
"""Called with a way to ask the server, before a connection carries anything else."""


class ConnectFailedError(Exception):
    """No usable connection; ``reason`` is from the closed set."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


_REASONS: tuple[tuple[type[Exception], Reason], ...] = (
    (BusyLoadingError, "loading"),
    (AuthenticationError, "no_permission"),
    (NoPermissionError, "no_permission"),
    (ReadOnlyError, "read_only"),
    (OutOfMemoryError, "out_of_memory"),
    (MasterDownError, "master_down"),
    (ClusterDownError, "cluster_down"),
)


class _Detachable(AbstractConnection):
    """A redis-py connection whose transport can be handed to another protocol once it is logged in."""

    def hand_over(self, taker: asyncio.Protocol) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Point the transport at ``taker``; returns the transport and the protocol that it had."""
        writer = self._writer
        if writer is None:
            raise ConnectionError("the connection was lost before it could be used")
        transport = cast("asyncio.Transport", writer.transport)
        former = transport.get_protocol()
        transport.set_protocol(taker)
        transport.resume_reading()
        return transport, former

    def forget(self) -> None:
        """The transport is closed, and not by redis-py: there is nothing left for it to close."""
        self._reader = None
        self._writer = None


class TcpConnection(_Detachable, Connection):
    """Plain TCP."""


class TlsConnection(_Detachable, SSLConnection):
    """TCP with TLS."""


class UnixConnection(_Detachable, UnixDomainSocketConnection):
    """A unix socket."""


AnyConnection = TcpConnection | TlsConnection | UnixConnection


class Opened(NamedTuple):
    """A connection that is ready for script calls."""

    link: Link
    facts: ServerFacts
    sha: bytes


def connection_options(settings: RedisSettings) -> dict[str, Any]:
    """The options of ``settings`` as redis-py's connections and clients take them, without the class."""
    options = cast("dict[str, Any]", dict(parse_url(settings.url)))
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl_check_hostname"] = settings.tls_check_hostname
        for option, path in (
            ("ssl_ca_certs", settings.tls_ca_file),
            ("ssl_certfile", settings.tls_cert_file),
            ("ssl_keyfile", settings.tls_key_file),
        ):
            if path is not None:
                options[option] = str(path)
    if settings.credentials is not None:
        options = {name: value for name, value in options.items() if name not in {"username", "password"}}
        options["credential_provider"] = settings.credentials
    timeout_s = settings.connect_timeout_ms / 1000
    return {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s, **options}


def address_of(settings: RedisSettings) -> Address:
    """Host and port in the URL."""
    options = connection_options(settings)
    return options.get("host", "localhost"), options.get("port", 6379)


class Connector:
    """Makes connections of one kind; ``resolve`` returns the address, for each anew."""

    def __init__(
        self, settings: RedisSettings, script: str, resolve: Resolve, *, master_only: bool, join: Join | None = None
    ) -> None:
        # Bounded from outside: with a time-out of its own, redis-py sends through wait_for, which in Python 3.11 may
        # swallow a cancellation (https://github.com/python/cpython/issues/86296).
        # Made once: for every connection redis-py would read its own version from disk, which takes half a millisecond.
        self._options = {**connection_options(settings), "socket_timeout": None, "driver_info": DriverInfo()}
        scheme_class = parse_url(settings.url).get("connection_class")
        self._class: type[AnyConnection] = TcpConnection
        if scheme_class is SSLConnection:
            self._class = TlsConnection
        elif scheme_class is UnixDomainSocketConnection:
            self._class = UnixConnection
        self._credentials = settings.credentials
        self._login: Login | None = None
        self._renew_s = settings.renew_credentials_s
        self._timeout_s = settings.connect_timeout_ms / 1000
        self._script = script
        self._resolve = resolve
        self._master_only = master_only
        self._join = join

    @property
    def renew_s(self) -> float | None:
        """How often to ask for new credentials; ``None`` where the URL has the only ones."""
        return None if self._credentials is None else self._renew_s

    @property
    def description(self) -> str:
        """Where the URL points, without credentials."""
        return str(
            self._options.get("path") or f"{self._options.get('host', 'localhost')}:{self._options.get('port', 6379)}"
        )

    async def open(self, on_lost: Callable[[Link], None]) -> Opened:
        """Connect and prepare. Raises ``ConnectFailedError`` or ``StoreMisconfiguredError``."""
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self.log_in()
                try:
                    return await self._prepare(connection, on_lost)
                except BaseException:
                    await connection.disconnect(nowait=True)
                    raise
        except (RedisError, OSError, TimeoutError) as error:
            raise ConnectFailedError(_reason_of(error), str(error) or type(error).__name__) from error

    async def log_in(self) -> AnyConnection:
        """A connection after TLS and login, still in redis-py's hands."""
        options = dict(self._options)
        address = await self._resolve()
        if address is not None:
            options["host"], options["port"] = address
        # RESP2: no push messages between replies, and script calls answer one string in either protocol.
        connection = self._class(**{"protocol": 2, **options})
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def new_login(self) -> Login | None:
        """The login of this moment, where it is another than this was answered with last."""
        if self._credentials is None:
            return None
        login = await self._credentials.get_credentials_async()
        known, self._login = self._login, login
        return None if login == known else login

    async def read_slots(self, asked_host: str) -> list[SlotRange]:
        """The Cluster's map as this server knows it. Raises ``RedisError``, ``OSError``, ``TimeoutError``."""
        async with asyncio.timeout(self._timeout_s):
            connection = await self.log_in()
            try:
                return read_slots(await ask(connection, "CLUSTER", "SLOTS"), asked_host)
            finally:
                await connection.disconnect(nowait=True)

    async def _prepare(self, connection: AnyConnection, on_lost: Callable[[Link], None]) -> Opened:
        try:
            info = await ask(connection, "INFO")
        except NoPermissionError:
            info = b""
        facts = read_info(info.decode())
        require_fit(facts)
        if self._master_only and facts.role == "slave":
            raise RedisConnectionError("the server at the master's address is a replica")
        if self._join is not None:
            await self._join(partial(ask, connection), facts)
        sha = await ask(connection, "SCRIPT", "LOAD", self._script)
        return Opened(Link(connection, on_lost), facts, sha)


def _reason_of(error: Exception) -> Reason:
    """Why there is no connection that decides: redis-py keeps the code of an error reply in the class of its error."""
    for known, reason in _REASONS:
        if isinstance(error, known):
            return reason
    fault = classify(str(error))
    return "connection_lost" if fault.reason == "script_error" else fault.reason


async def ask(connection: AnyConnection, *command: str | bytes | int) -> Reply:
    """Send one command and read its reply, before the connection is handed over."""
    await connection.send_command(*command)
    return await connection.read_response()
