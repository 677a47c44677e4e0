"""The decision endpoints: the fast path without FastAPI, and the handler that it shares with the FastAPI routes."""

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial

import msgspec
import structlog

from data_plane.decide.check_resolution import UnknownNameError
from data_plane.decide.decider import Decider
from data_plane.decide.decision_tally import LATENCY_BUCKETS_US
from data_plane.http.answers import Answer, InputError, problem
from data_plane.http.caller import NETWORK, REQUEST_ID_HEADER, TOKEN_HEADER, Caller, Headers, Trust, header, identify
from data_plane.http.forward_auth import DIALECTS, PREFIX, DialectName, RefusedInputError, denies_as_403, known_fields
from data_plane.http.forward_auth import read as read_forward_auth
from data_plane.http.pending_checks import (
    HTTP_CHECK_SLOTS,
    AuthorizeCheck,
    Batch,
    BatchCheck,
    HttpCheck,
    RepliedAuthorizeCheck,
    Reply,
)
from data_plane.http.reading import (
    BATCH_BOUNDS,
    ESCAPE,
    decode_check,
    from_stranger,
    read_checks,
    too_long_a_batch,
    unreadable,
    validate,
    wrong_batch_size,
)
from data_plane.http.render import Renderer, batch_item_error, not_understood, refused_input
from data_plane.http.replays import MAX_REQUEST_NAME_BYTES, Replays, request_name
from data_plane.http.response_templates import ResponseTemplate
from data_plane.store.packing import FIGURES
from data_plane.store.subjects import InvalidAddressError
from tidegate.contract.decision import MAX_BATCH_BODY_BYTES, MAX_BODY_BYTES, CheckRequest
from tidegate.contract.decoding import UNREADABLE
from tidegate.http_front.exchange import ELSEWHERE, Exchange, Route

log = structlog.get_logger()
PART_OF_BATCH = 50
"""Checks that are decided in one turn: about a millisecond of the event loop."""
FORWARD_AUTH = PREFIX.encode()
CHECK, CHECK_BATCH, AUTHORIZE = range(3)


class DecisionFastPath:
    """The routes of decisions, with the bounds of their bodies."""

    def __init__(self, handler: "DecisionHandler") -> None:
        self._handler = handler
        self.routes: Sequence[Route] = (
            Route("check", MAX_BODY_BYTES, FastCheck, handler.check),
            Route("check_batch", MAX_BATCH_BODY_BYTES, AnswerExchange, self._check_batch),
            Route("authorize", MAX_BODY_BYTES, FastAuthorizeCheck, self._authorize),
        )

    def find(self, method: bytes, target: bytes) -> int:
        """``POST /v1/check`` and ``/v1/check/batch``; any method on ``/v1/authorize`` and below."""
        if method == b"POST":
            if target == b"/v1/check":
                return CHECK
            if target == b"/v1/check/batch":
                return CHECK_BATCH
        if target.startswith(FORWARD_AUTH) and target[13:14] in (b"", b"/", b"?"):
            return AUTHORIZE
        return ELSEWHERE

    def too_much_status(self, status: int, target: bytes) -> int:
        """The status of a request that is too large: forward-auth uses 403, as gateways may let others pass."""
        return 403 if target.startswith(FORWARD_AUTH) else status

    def _check_batch(self, exchange: "AnswerExchange") -> None:
        self._handler.check_batch(exchange.head.fields, exchange.body, exchange.peer, exchange.reply)

    def _authorize(self, exchange: "FastAuthorizeCheck") -> None:
        head = exchange.head
        self._handler.authorize(head.method.decode("latin-1"), head.target.decode("latin-1"), exchange)


class DecisionHandler:
    """Reads requests, asks the decider, renders answers. Each method replies exactly once and never raises.

    Request ids are ``id_prefix`` and a number, unique while the prefix is.
    """

    def __init__(
        self, decider: Decider, renderer: Renderer, id_prefix: str, *,
        trust: Trust, dialect: DialectName, key_sources: tuple[str, ...], trusted_hops: int,
    ) -> None:  # fmt: skip
        self._decider = decider
        self._renderer = renderer
        self._now_us = decider.now_us
        self._id_prefix = id_prefix.encode()
        self._id_number = 0
        self._trust: Trust = trust
        self._dialect = dialect
        self._key_sources = tuple(source.encode() for source in key_sources)
        self._trusted_hops = trusted_hops
        self._replays = Replays()

    def check(self, check: HttpCheck) -> None:
        """``POST /v1/check``."""
        try:
            caller = NETWORK if self._trust == "network" else self._caller(header(check.headers, TOKEN_HEADER))
            body = check.body
            if len(body) > MAX_BODY_BYTES:
                raise InputError(413, f"the body is over {MAX_BODY_BYTES} bytes")
            try:
                request = decode_check(body)
            except UNREADABLE as error:
                raise unreadable(error) from error
            # nearly every check passes these conditions and needs no validation
            if (
                request.client is not None
                or request.endpoint is not None
                or request.attributes
                or not caller.trusted
                or ESCAPE in body
            ):
                validate(request, caller, body)
            check.request = request if caller.trusted else from_stranger(request, check.peer)
            check.plain = request.request_id is None and not request.explain
            self._ask(check)
        except InputError as error:
            check.reply(error.answer())
        except (UnknownNameError, InvalidAddressError) as error:
            check.reply(not_understood(error).answer())

    def check_batch(self, headers: Headers, body: bytes, peer: str | None, reply: Reply) -> None:
        """``POST /v1/check/batch``: answered when the last of its decisions is there, in order."""
        try:
            caller = NETWORK if self._trust == "network" else self._caller(header(headers, TOKEN_HEADER))
            max_bytes, max_items = BATCH_BOUNDS[caller.trusted]
            if len(body) > max_bytes:
                raise too_long_a_batch(len(body), max_bytes)
            items = read_checks(body, caller)
            if not 1 <= len(items) <= max_items:
                raise wrong_batch_size(len(items), max_items)
            if not caller.trusted:
                items = [item if isinstance(item, InputError) else from_stranger(item, peer) for item in items]
        except InputError as error:
            reply(error.answer())
            return
        self._id_number += 1
        ask_part = partial(self._ask_part, items, b"%b%d-" % (self._id_prefix, self._id_number))
        ask_part(Batch(len(items), self._decider.tally, reply, ask_part))

    def _ask_part(self, items: Sequence[CheckRequest | InputError], id_prefix: bytes, batch: Batch) -> None:
        """Ask about the next part of a batch: one reading of the clock, one index, one call of the store."""
        try:
            self._decide_part(items, id_prefix, batch)
        except Exception:
            log.exception("a batch failed")
            batch.fail(problem(500, "The node failed to answer."))

    def _decide_part(self, items: Sequence[CheckRequest | InputError], id_prefix: bytes, batch: Batch) -> None:
        decider, renderer = self._decider, self._renderer
        now_us = self._now_us()
        ready: list[HttpCheck] = []
        for position in batch.begin_part(PART_OF_BATCH, now_us):
            request = items[position]
            if isinstance(request, InputError):
                batch.place(position, _in_its_place(request), now_us)
                continue
            check = BatchCheck()
            check.batch = batch
            check.decider = decider
            check.renderer = renderer
            check.request = request
            check.asked_us = now_us
            check.id_prefix = id_prefix
            check.id_number = position
            check.plain = request.request_id is None and not request.explain
            try:
                if decider.make_ready(check):
                    ready.append(check)
            except (UnknownNameError, InvalidAddressError) as error:
                batch.place(position, _in_its_place(not_understood(error)), now_us)
        if ready:
            decider.submit_all(ready)
        batch.answered(now_us)

    def authorize(self, method: str, target: str, check: AuthorizeCheck) -> None:
        """``/v1/authorize`` and below: 200, 401, 403 or 429, whatever an end client sends."""
        pending: HttpCheck = check
        headers = check.headers
        fields = known_fields(headers)
        if denies_as_403(target):  # before anything may be refused: nginx accepts no other refusal than 403
            pending = RepliedAuthorizeCheck(headers, check.peer, _nginx_reply(check.reply))
        try:
            token = fields.get(TOKEN_HEADER)
            caller = (
                NETWORK if token is None and self._trust == "network" else self._caller(token[0] if token else None)
            )
            gateway = caller.gateway
            request = read_forward_auth(
                method, target, fields,
                dialect=DIALECTS[(gateway.dialect if gateway is not None else None) or self._dialect],
                by_token=gateway is not None, key_sources=self._key_sources, trusted_hops=self._trusted_hops,
            )  # fmt: skip
            request_id = fields.get(REQUEST_ID_HEADER)
            if gateway is not None and request_id is not None and len(request_id[0]) <= MAX_REQUEST_NAME_BYTES:
                name = request_name(gateway.gateway, request_id[0], request)
                first = self._replays.first_time(name, pending.reply, self._now_us())
                if first is None:
                    return
                pending = RepliedAuthorizeCheck(headers, check.peer, first)
            pending.request = request if caller.trusted else from_stranger(request, check.peer)
            pending.plain = True
            self._ask(pending)
        except RefusedInputError as error:
            pending.reply(refused_input(error))
        except (UnknownNameError, InvalidAddressError) as error:
            message = not_understood(error).detail
            pending.reply(problem(403, message, error="malformed_request", message=message))
        except InputError as error:  # the gateway's own credential is missing or wrong
            pending.reply(error.answer())

    def _ask(self, check: HttpCheck) -> None:
        decider = self._decider
        check.decider = decider
        check.renderer = self._renderer
        check.asked_us = self._now_us()
        check.id_prefix = self._id_prefix
        self._id_number = check.id_number = self._id_number + 1
        if decider.make_ready(check):
            decider.submit(check)

    def _caller(self, token: bytes | None) -> Caller:
        index = self._decider.index
        caller = identify(token, self._trust, index.book.gateways.get, self._now_us() / 1_000_000)
        if caller is None:
            raise InputError(401, "a valid gateway token is needed in X-Tidegate-Token")
        return caller


class AnswerExchange(Exchange):
    """An exchange that is answered by an ``Answer``; batches need no more."""

    __slots__ = ()

    def reply(self, answer: Answer) -> None:
        """Send the answer."""
        self.respond(answer.status, answer.headers, answer.body)


class FastCheck(AnswerExchange, HttpCheck):
    """A check and its exchange, in one object."""

    __slots__ = HTTP_CHECK_SLOTS

    def done(self, figures: Sequence[int], at: int, now_us: int, *, degraded: bool = False) -> None:
        """As in ``HttpCheck``, written out: this is the hot path."""
        limit_set = self.limit_set
        template: ResponseTemplate | None = limit_set.template
        if template is None or not self.plain or not template.usable:
            super().done(figures, at, now_us, degraded=degraded)
            return
        begin_us = now_us + 999_999 if template.reset_is_epoch else 999_999
        if template.single:
            left = figures[at]
            reset_us = figures[at + 1]
            seconds, us = divmod(reset_us, 1_000_000)
            shown: tuple[int, ...] = (
                left, (begin_us + reset_us) // 1_000_000, left, seconds + 1 if us else seconds,
            )  # fmt: skip
            wait = figures[at + 2]
        else:
            own = figures[at : at + limit_set.size]
            left = own[template.headline_at]
            reset_us = own[template.headline_at + 1]
            seconds, us = divmod(reset_us, 1_000_000)
            shown = template.header_figures(own, now_us)
            wait = min(own[2::FIGURES])
        if wait < 0:
            super().done(figures, at, now_us, degraded=degraded)
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
        asker = self.asker
        if asker is None:
            return
        self.asker = None
        principal = self.principal
        client = b"null" if principal is None else principal.json
        asker.answer_ok(
            self,
            template.json_headers % shown,
            (template.degraded_body if degraded else template.body)
            % (client, left, seconds, us, self.revision, self.id_prefix, self.id_number),
        )


class FastAuthorizeCheck(AnswerExchange, AuthorizeCheck):
    """A forward-auth subrequest and its exchange, in one object."""

    __slots__ = HTTP_CHECK_SLOTS

    def pass_plainly(self, template: ResponseTemplate, own: Sequence[int], now_us: int, *, degraded: bool) -> None:
        """Answer with headers alone; they do not show whether the store decided."""
        del degraded
        self.respond_ok(template.headers % template.header_figures(own, now_us), b"")


def _nginx_reply(reply: Reply) -> Reply:
    """nginx's ``auth_request`` knows 2xx, 401 and 403 only: the true status and body travel in headers."""

    def as_403(answer: Answer) -> None:
        if answer.status == 200:
            reply(answer)
            return
        lines = f"x-rl-status: {answer.status}\r\nx-rl-body: ".encode() + answer.body + b"\r\n"
        reply(Answer(403, answer.headers + lines, answer.body))

    return as_403


def _in_its_place(error: InputError) -> bytes:
    return msgspec.json.encode(batch_item_error(error))
