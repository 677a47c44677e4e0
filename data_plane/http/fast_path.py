"""Decisions straight from the front, without FastAPI: an exchange in, an answer out."""

from bisect import bisect_left
from collections.abc import Sequence

from data_plane.decide.decision_tally import LATENCY_BUCKETS_US
from data_plane.http.answers import Answer
from data_plane.http.decision_handler import DecisionHandler
from data_plane.http.forward_auth import PREFIX
from data_plane.http.pending_checks import HTTP_CHECK_SLOTS, AuthorizeCheck, HttpCheck
from data_plane.http.response_templates import ResponseTemplate
from data_plane.store.packing import FIGURES
from tidegate.contract.decision import MAX_BATCH_BODY_BYTES, MAX_BODY_BYTES
from tidegate.http_front.exchange import ELSEWHERE, Exchange, Route

FORWARD_AUTH = PREFIX.encode()
CHECK, CHECK_BATCH, AUTHORIZE = range(3)


class FastCheck(Exchange, HttpCheck):
    """A check and its exchange, in one object."""

    __slots__ = HTTP_CHECK_SLOTS

    def done(self, figures: Sequence[int], at: int, now_us: int) -> None:
        """The store has decided. As in ``HttpCheck``, written out: this is the hot path."""
        limit_set = self.limit_set
        template: ResponseTemplate | None = limit_set.template
        if template is None or not self.plain or not template.usable:
            super().done(figures, at, now_us)
            return
        begin_us = now_us + 999_999 if template.begins_now else 999_999
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
            left = own[template.shown]
            reset_us = own[template.shown + 1]
            seconds, us = divmod(reset_us, 1_000_000)
            shown = template.header_figures(own, now_us)
            wait = min(own[2::FIGURES])
        if wait < 0:
            super().done(figures, at, now_us)
            return
        decider = self.decider
        tally = decider.tally
        took_us = now_us - self.asked_us
        tally.allowed += 1
        tally.latency_counts[bisect_left(LATENCY_BUCKETS_US, took_us)] += 1
        tally.latency_sum_us += took_us
        for observer in decider.observers:
            observer.passed(self)
        asker = self.asker
        if asker is None:
            return
        self.asker = None
        principal = self.principal
        client = b"null" if principal is None else principal.json
        asker.answer_ok(
            self,
            template.json_headers % shown,
            template.body % (client, left, seconds, us, self.revision, self.id_prefix, self.id_number),
        )

    def reply(self, answer: Answer) -> None:
        """Send the answer."""
        self.respond(answer.status, answer.headers, answer.body)


class FastAuthorizeCheck(Exchange, AuthorizeCheck):
    """A forward-auth subrequest and its exchange, in one object."""

    __slots__ = HTTP_CHECK_SLOTS

    def pass_plainly(
        self, template: ResponseTemplate, own: Sequence[int], now_us: int, *, degraded: bool = False
    ) -> None:  # fmt: skip
        """Answer with headers alone; they do not show whether the store decided."""
        del degraded
        self.respond_ok(template.headers % template.header_figures(own, now_us), b"")

    def reply(self, answer: Answer) -> None:
        """Send the answer."""
        self.respond(answer.status, answer.headers, answer.body)


class FastBatch(Exchange):
    """The exchange of a batch."""

    __slots__ = ()

    def reply(self, answer: Answer) -> None:
        """Send the answer."""
        self.respond(answer.status, answer.headers, answer.body)


class DecisionFastPath:
    """The routes of decisions, with the bounds of their bodies."""

    def __init__(self, handler: DecisionHandler) -> None:
        self._handler = handler
        self.routes: Sequence[Route] = (
            Route("check", MAX_BODY_BYTES, FastCheck, handler.check),
            Route("check_batch", MAX_BATCH_BODY_BYTES, FastBatch, self._check_batch),
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

    def _check_batch(self, exchange: FastBatch) -> None:
        self._handler.check_batch(exchange.head.fields, exchange.body, exchange.peer, exchange.reply)

    def _authorize(self, exchange: FastAuthorizeCheck) -> None:
        head = exchange.head
        self._handler.authorize(head.method.decode("latin-1"), head.target.decode("latin-1"), exchange)
