"""The lane's door onto the decision endpoints: an exchange in, an answer out."""

from bisect import bisect_left
from collections.abc import Sequence

from data_plane.api.answers import Answer
from data_plane.api.door import Door
from data_plane.api.forms import Form
from data_plane.api.lane.door import Exchange
from data_plane.api.questions import QUESTION_SLOTS, AuthorizeQuestion, Question
from data_plane.domain.wire import FIGURES
from data_plane.services.tally import LATENCY_BUCKETS_US


class LaneQuestion(Exchange, Question):
    """A check and its exchange, in one object."""

    __slots__ = QUESTION_SLOTS

    def done(self, figures: Sequence[int], at: int, now_us: int) -> None:
        """The store has decided. As in ``Question``, written out: this is the hot path."""
        bound = self.bound
        form: Form | None = bound.form
        if form is None or not self.plain or not form.usable:
            super().done(figures, at, now_us)
            return
        begin_us = now_us + 999_999 if form.begins_now else 999_999
        if form.single:
            left = figures[at]
            reset_us = figures[at + 1]
            seconds, us = divmod(reset_us, 1_000_000)
            shown: tuple[int, ...] = (
                left, (begin_us + reset_us) // 1_000_000, left, seconds + 1 if us else seconds,
            )  # fmt: skip
            wait = figures[at + 2]
        else:
            own = figures[at : at + bound.size]
            left = own[form.shown]
            reset_us = own[form.shown + 1]
            seconds, us = divmod(reset_us, 1_000_000)
            shown = form.header_figures(own, now_us)
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
            form.json_headers % shown,
            form.body % (client, left, seconds, us, self.revision, self.id_prefix, self.id_number),
        )

    def reply(self, answer: Answer) -> None:
        """Send the answer."""
        self.respond(answer.status, answer.headers, answer.body)


class LaneAuthorizeQuestion(Exchange, AuthorizeQuestion):
    """A forward-auth subrequest and its exchange, in one object."""

    __slots__ = QUESTION_SLOTS

    def pass_plainly(self, form: Form, own: Sequence[int], now_us: int) -> None:
        """Answer with headers alone."""
        self.respond_ok(form.headers % form.header_figures(own, now_us), b"")

    def reply(self, answer: Answer) -> None:
        """Send the answer."""
        self.respond(answer.status, answer.headers, answer.body)


class LaneBatch(Exchange):
    """The exchange of a batch."""

    __slots__ = ()

    def reply(self, answer: Answer) -> None:
        """Send the answer."""
        self.respond(answer.status, answer.headers, answer.body)


class LaneDoor:
    """What the lane hands its requests to."""

    exchange_types = (LaneQuestion, LaneBatch, LaneAuthorizeQuestion)

    def __init__(self, door: Door) -> None:
        self._door = door
        self.check = door.check
        """``POST /v1/check``."""

    def check_batch(self, exchange: LaneBatch) -> None:
        """``POST /v1/check/batch``."""
        self._door.check_batch(exchange.head.fields, exchange.body, exchange.reply)

    def authorize(self, exchange: LaneAuthorizeQuestion) -> None:
        """Any method on ``/v1/authorize`` and below."""
        head = exchange.head
        self._door.authorize(head.method.decode("latin-1"), head.target.decode("latin-1"), exchange)
