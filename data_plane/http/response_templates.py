"""Response templates: an answer that is written once, with blanks for what ``%`` fills in.

The careful code (``render.py``) makes them of what it writes itself. Answers without a template (a queue's turn, a
hidden limit) are left to it; ``tests/unit/http/test_templates.py`` compares the two.
"""

from collections.abc import Sequence

import msgspec

from data_plane.config.limit_set import LimitSet
from data_plane.decide.pending_check import Verdict, cause_of_denial
from data_plane.http.answers import JSON_TYPE, PROBLEM_TYPE, Answer
from data_plane.http.rate_limit_headers import ResetFormat, ceil_s
from data_plane.store.packing import FIGURES, NEVER, UNKNOWN
from tidegate.contract.decision import Decision

MAX_DENIAL_TEMPLATES = 64
"""The bound for one route: each combination of denying limits has a template."""


def with_blanks(body: msgspec.Struct, **blanks: str) -> bytes:
    """A body as JSON, with a blank such as ``%d`` for each of these members."""
    # until all is written, a blank begins with a byte that JSON has nowhere
    raw = {name: msgspec.Raw(blank.replace("%", "\0").encode()) for name, blank in blanks.items()}
    written = msgspec.json.encode(msgspec.structs.replace(body, **raw))
    return written.replace(b"%", b"%%").replace(b"\0", b"%")


class ResponseTemplate:
    """The answer to the plainly allowed checks of one ``LimitSet``, but for the figures, the client and the check's id.

    ``usable`` says whether it may be filled in at all; ``single`` that there is one limit. ``headers`` takes what
    ``header_figures`` gives. ``body`` takes the client as JSON, remaining, whole seconds and microseconds of
    reset_after_s, the revision, and the two parts of the request id; so does ``degraded_body``, for decisions without
    the store.
    """

    __slots__ = (
        "_is_triple", "_visible", "body", "degraded_body", "headers", "headline_at", "json_headers", "reset_is_epoch",
        "single", "usable",
    )  # fmt: skip

    def __init__(self, limit_set: LimitSet, headers: bytes, decision: Decision, reset_format: ResetFormat) -> None:
        limits = limit_set.limits
        self.headline_at = FIGURES * limit_set.headline
        """Where the figures of the headline limit begin."""
        self.reset_is_epoch = reset_format == "epoch"
        """Whether ``X-RateLimit-Reset`` counts from the epoch, not from now."""
        self._visible = tuple(FIGURES * at for at, limit in enumerate(limits) if limit.visible)
        self._is_triple = len(self._visible) == len(limits) == 3
        self.headers = headers
        self.json_headers = JSON_TYPE + self.headers
        self.body, self.degraded_body = [
            with_blanks(
                decision, client="%b", remaining="%d", reset_after_s="%d.%06d", degraded=degraded, revision="%d",
                request_id='"%b%d"',
            )
            for degraded in ("false", "true")
        ]  # fmt: skip
        self.usable = bool(
            limits and not (limit_set.has_queue or limit_set.rights) and limits[limit_set.headline].visible
        )
        self.single = self.usable and len(limits) == 1

    def header_figures(self, own: Sequence[int], now_us: int) -> tuple[int, ...]:
        """What the header lines show; ``own`` are the figures of all limits, ``now_us`` is the node's clock."""
        headline_at = self.headline_at
        begin_us = now_us + 999_999 if self.reset_is_epoch else 999_999
        if self._is_triple:  # written out: a limit by client, a burst and one by address are a usual plan
            one, one_us, _, two, two_us, _, three, three_us, _ = own
            return (
                own[headline_at], (begin_us + own[headline_at + 1]) // 1_000_000,
                one, (one_us + 999_999) // 1_000_000, two, (two_us + 999_999) // 1_000_000,
                three, (three_us + 999_999) // 1_000_000,
            )  # fmt: skip
        figures = [own[headline_at], (begin_us + own[headline_at + 1]) // 1_000_000]
        for at in self._visible:
            figures.append(own[at])
            figures.append((own[at + 1] + 999_999) // 1_000_000)
        return tuple(figures)

    def filled_body(
        self, own: Sequence[int], client: bytes, revision: int, id_prefix: bytes, id_number: int, *, degraded: bool
    ) -> bytes:
        """The decision; ``client`` is JSON already."""
        seconds, us = divmod(own[self.headline_at + 1], 1_000_000)
        body = self.degraded_body if degraded else self.body
        return body % (client, own[self.headline_at], seconds, us, revision, id_prefix, id_number)


class DenialTemplate:
    """The answer to denials by one combination of a route's limits: clients over their limit repeat requests.

    ``headers`` and ``body`` have blanks, which ``filled`` fills in order.
    """

    __slots__ = ("_body", "_for_end_user", "_headers", "_reset_is_epoch", "_visible")

    def __init__(
        self, limit_set: LimitSet, headers: bytes, body: bytes, reset_format: ResetFormat, *, for_end_user: bool
    ) -> None:
        self._reset_is_epoch = reset_format == "epoch"
        self._for_end_user = for_end_user
        self._headers = PROBLEM_TYPE + headers
        self._body = body
        self._visible = tuple(at for at, limit in enumerate(limit_set.limits) if limit.visible)

    def filled(self, verdict: Verdict, revision: int, request_id: str, now_us: int) -> Answer:
        """The answer to such a denial."""
        outcomes = verdict.outcomes
        shown = outcomes[verdict.shown or 0]
        wait_s = ceil_s(shown.retry_us)
        figures = [shown.remaining, ceil_s(now_us + shown.retry_us) if self._reset_is_epoch else wait_s]
        for at in self._visible:
            one = outcomes[at]
            figures.append(one.remaining)
            figures.append(ceil_s(one.reset_us if one.allowed else one.retry_us))
        figures.append(wait_s)
        name = request_id.encode()
        values: tuple[bytes | int, ...] = wait_s, name, wait_s
        if not self._for_end_user:
            values = (
                verdict.check.client_json, *divmod(shown.reset_us, 1_000_000), *divmod(shown.retry_us, 1_000_000),
                revision, name, *values,
            )  # fmt: skip
        return Answer(429, self._headers % tuple(figures), self._body % values)


def has_template(denial: Verdict) -> bool:
    """Whether a denial has no more figures than a template: limits are used up, for a time that is known."""
    if denial.degraded or denial.shadow_denied or cause_of_denial(denial) != "used_up":
        return False
    return all(one.retry_us != NEVER and one.remaining != UNKNOWN for one in denial.outcomes)
