"""Checks as the HTTP handlers hold them: one object from the request to the bytes of its answer.

A template answers what the store plainly allows. The careful code (``render.py``) answers everything else; both write
the same bytes (``tests/unit/http/test_templates.py``).
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from data_plane.decide.decision_tally import Tally
from data_plane.decide.pending_check import CHECK_SLOTS, PendingCheck, Refusal, Verdict
from data_plane.http.answers import JSON_TYPE, Answer
from data_plane.http.caller import Headers
from data_plane.http.response_templates import ResponseTemplate
from data_plane.store.packing import FIGURES

if TYPE_CHECKING:
    from data_plane.http.render import Renderer

Reply = Callable[[Answer], None]


class HttpCheck(PendingCheck):
    """A check that a handler asks; ``id_prefix`` and ``id_number`` together name it unless the request does.

    ``plain``: the request asks for nothing that a template cannot answer.
    """

    if not TYPE_CHECKING:  # as in PendingCheck
        __slots__ = ()

    body: bytes
    renderer: "Renderer"
    id_prefix: bytes
    id_number: int
    plain: bool

    @property
    def peer(self) -> str | None:
        """The address at the other end of its connection; ``None`` where that has none."""
        return None

    @property
    def request_id(self) -> str:
        """What names this check in its answer."""
        return self.request.request_id or f"{self.id_prefix.decode()}{self.id_number}"

    def done(self, figures: Sequence[int], at: int, now_us: int, *, degraded: bool = False) -> None:
        """The store or the store fallback has decided: a template answers what is plainly allowed."""
        limit_set = self.limit_set
        own = figures[at : at + limit_set.size]
        template: ResponseTemplate = limit_set.template or self.renderer.template(self)
        if not self.plain or not template.usable or min(own[2::FIGURES]) < 0:
            self.decider.answered(self, figures, at, now_us, degraded=degraded)
            return
        decider = self.decider
        decider.tally.passed(1, now_us - self.asked_us, degraded=degraded)
        for observer in decider.observers:
            observer.passed(self, degraded=degraded)
        self.pass_plainly(template, own, now_us, degraded=degraded)

    def pass_plainly(self, template: ResponseTemplate, own: Sequence[int], now_us: int, *, degraded: bool) -> None:
        """Answer by ``template``: every limit allows."""
        headers = template.json_headers % template.header_figures(own, now_us)
        body = template.filled_body(
            own, self.client_json, self.revision, self.id_prefix, self.id_number, degraded=degraded
        )
        self.reply(Answer(200, headers, body))

    def decided(self, result: Verdict | Refusal, now_us: int) -> None:
        """Answer what no template covers: a denial, a refusal, an explanation."""
        self.reply(self.renderer.check(result, self.request, self.revision, self.request_id, now_us))

    def reply(self, answer: Answer) -> None:
        """Send the answer."""
        raise NotImplementedError


HTTP_CHECK_SLOTS = (*CHECK_SLOTS, "id_number", "id_prefix", "plain", "renderer")


class AuthorizeCheck(HttpCheck):
    """A forward-auth subrequest: an empty answer with headers when it may pass."""

    if not TYPE_CHECKING:  # as in PendingCheck
        __slots__ = ()

    def pass_plainly(self, template: ResponseTemplate, own: Sequence[int], now_us: int, *, degraded: bool) -> None:
        """Answer with headers alone; they do not show whether the store decided."""
        del degraded
        self.reply(Answer(200, template.headers % template.header_figures(own, now_us), b""))

    def decided(self, result: Verdict | Refusal, now_us: int) -> None:
        """Answer what no template covers, for an end user."""
        self.reply(self.renderer.authorize(result, self.request_id, now_us))


class RepliedCheck(HttpCheck):
    """A check whose answer is handed to a callback."""

    __slots__ = (*HTTP_CHECK_SLOTS, "_headers", "_peer", "_reply", "body")

    def __init__(self, headers: Headers, peer: str | None, reply: Reply, body: bytes = b"") -> None:
        self._headers = headers
        self._peer = peer
        self._reply = reply
        self.body = body

    @property
    def headers(self) -> Headers:
        """What came with it."""
        return self._headers

    @property
    def peer(self) -> str | None:
        """The address at the other end."""
        return self._peer

    def reply(self, answer: Answer) -> None:
        """Hand over the answer."""
        self._reply(answer)


class RepliedAuthorizeCheck(AuthorizeCheck, RepliedCheck):
    """A subrequest whose answer is handed to a callback."""

    __slots__ = ()


class Batch:
    """The checks of one batch, decided part by part and answered in order when the last decision is there.

    Each part waits for the answer to the one before and takes a turn of the event loop, so that other requests are
    answered in between.
    """

    __slots__ = ("_ask_part", "_reply", "_tally", "asked_us", "begun", "bodies", "missing", "passed")

    def __init__(self, size: int, tally: Tally, reply: Reply, ask_part: Callable[["Batch"], None]) -> None:
        self._tally = tally
        self._reply = reply
        self._ask_part = ask_part
        self.bodies: list[bytes] = [b""] * size
        self.begun = 0
        """The number of checks asked so far."""
        self.asked_us = 0
        """When the present part was asked."""
        self.missing = 0
        """Checks of that part without an answer, and one more while the part is being asked."""
        self.passed = 0
        """Plainly allowed checks of the part; they are counted together at its end."""

    def begin_part(self, most: int, now_us: int) -> range:
        """The places of the next part, of ``most`` checks. The caller ends it by ``answered`` once all are asked."""
        part = range(self.begun, min(self.begun + most, len(self.bodies)))
        self.begun = part.stop
        self.missing = len(part) + 1
        self.asked_us = now_us
        return part

    def place(self, position: int, body: bytes, now_us: int) -> None:
        """Take an item's answer."""
        self.bodies[position] = body
        self.answered(now_us)

    def answered(self, now_us: int) -> None:
        """Count an answer; the last one of a part begins the next part, or sends all answers."""
        self.missing -= 1
        if not self.missing:
            self.end_part(now_us)

    def end_part(self, now_us: int) -> None:
        """Begin the next part, or send all answers."""
        if self.passed:
            self._tally.passed(self.passed, now_us - self.asked_us)
            self.passed = 0
        if self.begun < len(self.bodies):
            asyncio.get_running_loop().call_soon(self._ask_part, self)
        else:
            self._reply(Answer(200, JSON_TYPE, b'{"decisions":[' + b",".join(self.bodies) + b"]}"))

    def fail(self, answer: Answer) -> None:
        """Answer the whole batch with an error."""
        self.missing = 0
        self._reply(answer)


class BatchCheck(HttpCheck):
    """One item of a batch, at its place ``id_number``."""

    __slots__ = (*HTTP_CHECK_SLOTS, "batch")

    batch: Batch

    def done(self, figures: Sequence[int], at: int, now_us: int, *, degraded: bool = False) -> None:
        """As in ``HttpCheck``, written out: a batch is a thousand of these."""
        template: ResponseTemplate = self.limit_set.template or self.renderer.template(self)
        if not self.plain or not template.usable:
            self.decider.answered(self, figures, at, now_us, degraded=degraded)
            return
        principal = self.principal
        if template.single:
            left, reset_us, wait = figures[at : at + FIGURES]
        else:
            own = figures[at : at + self.limit_set.size]
            left, reset_us, wait = own[template.headline_at], own[template.headline_at + 1], min(own[2::FIGURES])
        if wait < 0:
            self.decider.answered(self, figures, at, now_us, degraded=degraded)
            return
        number = self.id_number
        batch = self.batch
        batch.bodies[number] = (template.degraded_body if degraded else template.body) % (
            b"null" if principal is None else principal.json, left, reset_us // 1_000_000, reset_us % 1_000_000,
            self.revision, self.id_prefix, number,
        )  # fmt: skip
        batch.passed += 1
        if degraded:
            self.decider.tally.degraded += 1
        for observer in self.decider.observers:
            observer.passed(self, degraded=degraded)
        batch.missing -= 1
        if not batch.missing:
            batch.end_part(now_us)

    def decided(self, result: Verdict | Refusal, now_us: int) -> None:
        """The careful answer."""
        body = self.renderer.batch_item(result, self.request, self.revision, self.request_id)
        self.batch.place(self.id_number, body, now_us)
