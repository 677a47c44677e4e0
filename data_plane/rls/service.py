"""gRPC methods of a node: ``ShouldRateLimit`` of Envoy's rate limit service, and ``Check`` of gRPC's health service."""

import itertools
import secrets
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from data_plane.decide.check_resolution import UnknownNameError
from data_plane.decide.decider import Decider
from data_plane.decide.decision_tally import LATENCY_BUCKETS_US
from data_plane.decide.pending_check import CHECK_SLOTS, PendingCheck, Refusal, Verdict
from data_plane.http.caller import TOKEN_HEADER, Headers, Trust, header, identify
from data_plane.http.render import Renderer
from data_plane.rls.answers import malformed, response
from data_plane.rls.deciding import Result, Together
from data_plane.rls.grpc import (
    DEADLINE_EXCEEDED,
    INVALID_ARGUMENT,
    NOT_FOUND,
    UNAUTHENTICATED,
    GrpcCall,
    GrpcHandler,
)
from data_plane.rls.mapping import MalformedError, RlsMapping, UnmappedError
from data_plane.rls.messages import NOT_SERVING, SERVING, HealthCheckRequest, HealthCheckResponse, RateLimitRequest
from data_plane.rls.template import AllowedTemplate
from data_plane.store.packing import FIGURES
from data_plane.store.subjects import InvalidAddressError

SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
HEALTH = "grpc.health.v1.Health"
MAX_MESSAGE_BYTES = 64 * 1024
MAX_DESCRIPTORS = 64


class RlsCall(GrpcCall, PendingCheck):
    """A call and, if it has one descriptor, its check, in one object."""

    __slots__ = (*CHECK_SLOTS, "number", "service")

    number: int
    service: "RateLimitService"

    @property
    def request_id(self) -> str:
        """The id of the call, in its answer and in the log."""
        return f"{self.service.id_prefix}{self.number:x}"

    @property
    def headers(self) -> Headers:
        """The headers of the call."""
        return self.head.fields

    def done(self, figures: Sequence[int], at: int, now_us: int, *, degraded: bool = False) -> None:
        """The store or the store fallback has decided. A template answers plainly allowed checks."""
        limit_set = self.limit_set
        own = figures[at : at + limit_set.size]
        template: AllowedTemplate | None = limit_set.rls_template
        if template is None:
            template = self.service.template(self)
        if template is None or min(own[2::FIGURES]) < 0:
            self.decider.answered(self, figures, at, now_us, degraded=degraded)
            return
        decider = self.decider
        tally = decider.tally
        took_us = now_us - self.asked_us
        tally.allowed += 1
        tally.latency_counts[bisect_left(LATENCY_BUCKETS_US, took_us)] += 1
        tally.latency_sum_us += took_us
        if degraded:
            tally.degraded += 1
        for observer in decider.observers:
            observer.passed(self, degraded=degraded)
        self.answer(template.filled(own, now_us), now_us)

    def decided(self, result: Verdict | Refusal, now_us: int) -> None:
        """Answer without a template."""
        self.answer(response(self.service.renderer, [Result(result, now_us)], self.request_id), now_us)

    def answer(self, message: bytes, now_us: int) -> None:
        """Send the message, unless the deadline has passed."""
        timeout_us = self.head.meaning.timeout_us
        if timeout_us is not None and now_us - self.asked_us > timeout_us:
            self.fail(DEADLINE_EXCEEDED, "the deadline has passed")
        else:
            self.reply(message)


class RateLimitService:
    """Answers ``ShouldRateLimit``. Callers act for clients, so they need a token unless the network is trusted."""

    def __init__(self, decider: Decider, renderer: Renderer, mapping: RlsMapping, trust: Trust, node: str) -> None:
        self.renderer = renderer
        self.id_prefix = f"{node}-rls-{secrets.token_hex(4)}-"
        self._decider = decider
        self._mapping = mapping
        self._trust: Trust = trust
        self._next_number = itertools.count(1).__next__

    def should_rate_limit(self, call: RlsCall, message: bytes) -> None:
        """Decide one call. It fails for errors of the gateway's operator only, never for those of end clients."""
        decider = self._decider
        if self._trust != "network" and not self._may_ask(call.head.fields):
            call.fail(UNAUTHENTICATED, "a valid gateway token is needed in x-tidegate-token")
            return
        call.service = self
        call.decider = decider
        call.number = self._next_number()
        call.asked_us = decider.now_us()
        try:
            request = RateLimitRequest.FromString(message)
        except DecodeError:  # Envoy passes header values on unchanged, and protobuf strings are UTF-8
            call.reply(malformed("a header is not UTF-8", 0))
            return
        descriptors = request.descriptors
        count = len(descriptors)
        if not 1 <= count <= MAX_DESCRIPTORS:
            call.fail(INVALID_ARGUMENT, f"descriptors: from 1 to {MAX_DESCRIPTORS}")
            return
        try:
            if count > 1:
                self._decide_together(call, request)
                return
            call.request = self._check(request, descriptors[0])
            if decider.make_ready(call):
                decider.submit(call)
        except UnmappedError as error:
            call.fail(INVALID_ARGUMENT, str(error))
        except MalformedError as error:
            call.reply(malformed(str(error), count))
        except (UnknownNameError, InvalidAddressError) as error:
            result = Result(error, call.asked_us)
            call.answer(response(self.renderer, [result], call.request_id), call.asked_us)

    def template(self, call: RlsCall) -> AllowedTemplate | None:
        """The template for a plainly allowed call; ``None`` if there cannot be one."""
        limit_set = call.limit_set
        of_http = self.renderer.template(call)
        if not of_http.usable:
            return None
        template = limit_set.rls_template = AllowedTemplate(limit_set, of_http)
        return template

    def _check(self, request: Any, descriptor: Any) -> Any:
        if descriptor.is_negative_hits:
            raise UnmappedError("is_negative_hits: hits are not given back")
        cost = descriptor.hits_addend.value if descriptor.HasField("hits_addend") else request.hits_addend or 1
        return self._mapping.check(request.domain, descriptor.entries, cost)

    def _decide_together(self, call: RlsCall, request: Any) -> None:
        checks = [self._check(request, descriptor) for descriptor in request.descriptors]
        request_id = call.request_id

        def done(results: list[Result]) -> None:
            call.answer(response(self.renderer, results, request_id), self._decider.now_us())

        Together(self._decider, checks, request_id, call.headers, done).decide()

    def _may_ask(self, sent: Headers) -> bool:
        now_s = self._decider.now_us() / 1_000_000
        caller = identify(header(sent, TOKEN_HEADER), self._trust, self._decider.index.book.gateways.get, now_s)
        return caller is not None and caller.trusted


def handler_of(service: RateLimitService, is_ready: Callable[[], bool]) -> GrpcHandler:
    """The handler of all calls. For health, the node (an empty name) and the service are the same."""

    def check_health(call: GrpcCall, message: bytes) -> None:
        try:
            name = HealthCheckRequest.FromString(message).service
        except DecodeError:
            call.fail(INVALID_ARGUMENT, "this is no HealthCheckRequest")
            return
        if name not in ("", SERVICE):
            call.fail(NOT_FOUND, "unknown service")
            return
        call.reply(HealthCheckResponse(status=SERVING if is_ready() else NOT_SERVING).SerializeToString())

    methods = {
        f"/{SERVICE}/ShouldRateLimit".encode(): service.should_rate_limit,
        f"/{HEALTH}/Check".encode(): check_health,
    }
    return GrpcHandler(methods, RlsCall, MAX_MESSAGE_BYTES)
