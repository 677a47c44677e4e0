"""The gRPC end: ``envoy.service.ratelimit.v3.RateLimitService``."""

import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import grpc
import structlog
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from google.protobuf.message import DecodeError

from data_plane.api.caller import TOKEN_HEADER, Headers, Trust, header, identify
from data_plane.api.render import Renderer
from data_plane.api.rls.answers import malformed, response
from data_plane.api.rls.deciding import decide
from data_plane.api.rls.mapping import Entry, MalformedError, RlsMapping, UnmappedError
from data_plane.services.decide import Decider

log = structlog.get_logger()
SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
MAX_MESSAGE_BYTES = 64 * 1024
MAX_DESCRIPTORS = 64
STOP_S = 5.0


class Tls(NamedTuple):
    """PEM files: the server's certificate and key, and the CA of the clients that it wants certificates of."""

    cert_file: Path
    key_file: Path
    client_ca_file: Path | None


class RateLimitService:
    """Answers ``ShouldRateLimit``. Callers speak for clients: they need a token unless the network is trusted."""

    def __init__(self, decider: Decider, renderer: Renderer, mapping: RlsMapping, trust: Trust, node: str) -> None:
        self._decider = decider
        self._renderer = renderer
        self._mapping = mapping
        self._trust: Trust = trust
        self._next_id = map(f"{node}-rls-{secrets.token_hex(4)}-{{:x}}".format, itertools.count(1)).__next__

    async def should_rate_limit(
        self, request: RateLimitRequest | None, context: grpc.aio.ServicerContext
    ) -> RateLimitResponse:
        """One request's decision. Aborts only for what the gateway's operator got wrong, never for end clients."""
        if not self._may_ask(context):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "a valid gateway token is needed in x-tidegate-token")
        if request is None:
            return malformed("a header is not UTF-8", 0)
        descriptors = request.descriptors
        if not 1 <= len(descriptors) <= MAX_DESCRIPTORS:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"descriptors: from 1 to {MAX_DESCRIPTORS}")
        default = request.hits_addend or 1
        try:
            checks = [
                self._mapping.check(
                    request.domain,
                    (Entry(entry.key, entry.value) for entry in descriptor.entries),
                    descriptor.hits_addend.value if descriptor.HasField("hits_addend") else default,
                )
                for descriptor in descriptors
            ]
        except UnmappedError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except MalformedError as error:
            return malformed(str(error), len(descriptors))
        request_id = self._next_id()
        return response(self._renderer, await decide(self._decider, checks, request_id), request_id)

    def _may_ask(self, context: grpc.aio.ServicerContext) -> bool:
        if self._trust == "network":
            return True
        sent: Headers = [
            (name.encode(), value if isinstance(value, bytes) else value.encode())
            for name, value in context.invocation_metadata() or ()
        ]
        now_s = self._decider.now_us() / 1_000_000
        caller = identify(header(sent, TOKEN_HEADER), self._trust, self._decider.index.book.gateways.get, now_s)
        return caller is not None and caller.trusted


@contextlib.asynccontextmanager
async def serving_rls(service: RateLimitService, host: str, port: int, tls: Tls | None) -> AsyncIterator[int]:
    """Serve until the block ends, what is in flight finished; the value is the port (0 takes a free one)."""
    options = [("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(options=options)
    method = grpc.unary_unary_rpc_method_handler(
        service.should_rate_limit,
        request_deserializer=_decoded,
        response_serializer=RateLimitResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"ShouldRateLimit": method}),))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    bound = server.add_insecure_port(address) if tls is None else server.add_secure_port(address, _credentials(tls))
    await server.start()
    log.info("rate_limit_service", port=bound, tls=tls is not None)
    try:
        yield bound
    finally:
        await server.stop(STOP_S)


def _decoded(message: bytes) -> RateLimitRequest | None:
    """``None`` for what cannot be read: Envoy sends header values as they came, and text in protobuf is UTF-8."""
    try:
        return RateLimitRequest.FromString(message)
    except DecodeError:
        return None


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    pair = (tls.key_file.read_bytes(), tls.cert_file.read_bytes())
    ca = None if tls.client_ca_file is None else tls.client_ca_file.read_bytes()
    return grpc.ssl_server_credentials([pair], root_certificates=ca, require_client_auth=ca is not None)
