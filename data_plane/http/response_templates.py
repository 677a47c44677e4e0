"""Response templates: the parts of an answer that a plan and a route fix are written once, figures are filled in.

A template is derived from what the careful code (``render.py``) writes for a made-up verdict whose figures stand out.
It is kept only if, filled with other figures, it is byte for byte what the careful code writes for those: so the two
cannot differ. Answers without a template (a queue's turn, a hidden limit) are left to the careful code.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from data_plane.config.index import Principal
from data_plane.decide.pending_check import PendingCheck, ResolvedCheck, Verdict, cause_of_denial
from data_plane.http.answers import JSON_TYPE, Answer
from data_plane.http.rate_limit_headers import ResetFormat
from data_plane.store.packing import FIGURES, NEVER, Outcome
from tidegate.contract.config import Client

Careful = Callable[[Verdict, int, str, int], Answer]
"""The careful code's answer to a verdict, by revision, request id and the node's clock."""
_S = 1_000_000
_WITH_STORE, _WITHOUT_STORE = b'"degraded":false', b'"degraded":true'
"""Each occurs once in a body, because quotes within a name are escaped."""
_MAX_DENIAL_TEMPLATES = 64
"""The bound for one route: each combination of denying limits has a template."""


class ResponseTemplate:
    """The answer to the plainly allowed checks of one ``LimitSet``, but for the figures, the client and the check's id.

    ``usable`` says whether it may be filled in at all; ``single`` that there is one limit. ``headers`` takes what
    ``header_figures`` gives. ``body`` takes the client as JSON, remaining, whole seconds and microseconds of
    reset_after_s, the revision, and the two parts of the request id; so does ``degraded_body``, for decisions without
    the store.
    """

    __slots__ = (
        "_blank",
        "_hides",
        "_is_triple",
        "_visible",
        "begins_now",
        "body",
        "degraded_body",
        "headers",
        "json_headers",
        "shown",
        "single",
        "usable",
    )

    def __init__(self, check: PendingCheck, careful: Careful, reset_format: ResetFormat) -> None:
        limit_set = check.limit_set
        self.shown = FIGURES * limit_set.headline
        """Where the figures of the headline limit begin."""
        self.begins_now = reset_format == "epoch"
        """Whether ``X-RateLimit-Reset`` counts from the epoch, not from now."""
        self._visible = tuple(FIGURES * at for at, limit in enumerate(limit_set.limits) if limit.visible)
        self._hides = len(self._visible) < len(limit_set.limits)
        self._is_triple = len(limit_set.limits) == 3 and not self._hides
        self._blank = [0] * (2 + 2 * len(self._visible))
        self.json_headers = self.headers = self.body = self.degraded_body = b""
        self.usable = (
            bool(limit_set.limits)
            and not (limit_set.has_queue or limit_set.rights)
            and limit_set.limits[limit_set.headline].visible
            and self._derived(check, careful)
        )
        self.single = self.usable and len(limit_set.limits) == 1

    def _derived(self, check: PendingCheck, careful: Careful) -> bool:
        allowed = [Outcome(True, 0, 0, 0, 0)] * len(check.limit_set.limits)
        verdict = Verdict(check, True, allowed, check.limit_set.headline, (), (), False)
        first, second = (_made_up(verdict, number, identified=True) for number in (0, 1))
        answer = careful(*first)
        places = _places(first, is_epoch=self.begins_now) | {first.request_id.encode(): _Place(b"%b%d", (_ID,))}
        self.json_headers, _ = _blanked(answer.headers, places)
        self.headers = self.json_headers.removeprefix(JSON_TYPE)
        self.body, _ = _blanked(answer.body, places)
        self.degraded_body = self.body.replace(_WITH_STORE, _WITHOUT_STORE)
        try:
            return self._filled(second) == careful(*second)
        except TypeError:  # a number of a limit's own looks like a made-up one: there is a blank too many
            return False

    def _filled(self, made_up: "_MadeUp") -> Answer:
        own = [figure for one in made_up.verdict.outcomes for figure in (one.remaining, one.reset_us, 0)]
        headers = self.json_headers % self.header_figures(own, made_up.now_us)
        name, number = made_up.request_id[:-1].encode(), int(made_up.request_id[-1])
        return Answer(
            200, headers, self.filled_body(own, made_up.verdict.check.client_json, made_up.revision, name, number)
        )

    def header_figures(self, own: Sequence[int], now_us: int) -> tuple[int, ...]:
        """What the header lines show; ``own`` are the figures of all limits, ``now_us`` is the node's clock."""
        shown = self.shown
        begin_us = now_us + 999_999 if self.begins_now else 999_999
        if self._is_triple:  # written out: a limit by client, a burst and one by address are a usual plan
            one, one_us, _, two, two_us, _, three, three_us, _ = own
            return (
                own[shown], (begin_us + own[shown + 1]) // 1_000_000, one, (one_us + 999_999) // 1_000_000,
                two, (two_us + 999_999) // 1_000_000, three, (three_us + 999_999) // 1_000_000,
            )  # fmt: skip
        figures = self._blank.copy()
        figures[0] = own[shown]
        figures[1] = (begin_us + own[shown + 1]) // 1_000_000
        if self._hides:
            figures[2::2] = [own[at] for at in self._visible]
            figures[3::2] = [(own[at + 1] + 999_999) // 1_000_000 for at in self._visible]
        else:
            figures[2::2] = own[::FIGURES]
            figures[3::2] = [(us + 999_999) // 1_000_000 for us in own[1::FIGURES]]
        return tuple(figures)

    def filled_body(
        self, own: Sequence[int], client: bytes, revision: int, id_prefix: bytes, id_number: int, *,
        degraded: bool = False,
    ) -> bytes:  # fmt: skip
        """The decision; ``client`` is JSON already."""
        seconds, us = divmod(own[self.shown + 1], 1_000_000)
        body = self.degraded_body if degraded else self.body
        return body % (client, own[self.shown], seconds, us, revision, id_prefix, id_number)


class DenialTemplate:
    """The answer to denials by one combination of a route's limits: clients over their limit repeat requests."""

    __slots__ = ("_body", "_body_values", "_headers", "_headers_values", "_is_epoch", "_status")

    def __init__(self, answer: Answer, places: "_Places", *, is_epoch: bool) -> None:
        self._status = answer.status
        self._is_epoch = is_epoch
        self._headers, headers_values = _blanked(answer.headers, places)
        self._body, body_values = _blanked(answer.body, places)
        self._headers_values, self._body_values = itemgetter(*headers_values), itemgetter(*body_values)

    def filled(self, verdict: Verdict, revision: int, request_id: str, now_us: int) -> Answer:
        """The answer to such a denial."""
        values = _values(verdict, revision, request_id, now_us if self._is_epoch else 0)
        return Answer(
            self._status, self._headers % self._headers_values(values), self._body % self._body_values(values)
        )


def denial_template(
    templates: dict[Any, DenialTemplate | None], kind: str, verdict: Verdict, careful: Careful, *, is_epoch: bool
) -> DenialTemplate | None:
    """The template for a denial, out of those kept in ``templates`` or made now; ``None`` where there can be none.

    ``kind`` names the careful code, which must make the same of the same limits every time; ``is_epoch``:
    ``X-RateLimit-Reset`` counts from the epoch, not from now.
    """
    if verdict.shed_s or verdict.by_load or verdict.degraded or verdict.shadow_denied or verdict.shown is None:
        return None
    if cause_of_denial(verdict) != "used_up":  # the answers of other causes have more figures
        return None
    waits = [one.retry_us for one in verdict.outcomes]
    if NEVER in waits:
        return None
    key = kind, verdict.check.principal is None, verdict.shown, *map(bool, waits)
    if key in templates:
        return templates[key]
    if len(templates) >= _MAX_DENIAL_TEMPLATES:
        return None
    identified = verdict.check.principal is not None
    first, second = (_made_up(verdict, number, identified=identified) for number in (0, 1))
    made = DenialTemplate(careful(*first), _places(first, is_epoch=is_epoch), is_epoch=is_epoch)
    template = templates[key] = made if made.filled(*second) == careful(*second) else None
    return template


class _MadeUp(NamedTuple):
    """A verdict made up to derive a template from, or to try it with; what the careful code takes."""

    verdict: Verdict
    revision: int
    request_id: str
    now_us: int


def _made_up(verdict: Verdict, number: int, *, identified: bool) -> _MadeUp:
    """A verdict of the same limits with figures that are found again wherever they are written."""
    check = verdict.check
    name = f"<client {number}>"
    client = Client(client=name, plan=check.plan)
    principal = Principal(client, check.plan, b"", b"", msgspec.json.encode(name), check.plan)
    made_up_check = ResolvedCheck(
        check.request, principal if identified else None, check.limit_set, check.keys, check.cost
    )
    outcomes = []
    for at, one in enumerate(verdict.outcomes):
        # whole seconds differ from one figure to the next, and each has microseconds that are written in full
        reset_us, retry_us = (
            (71_200_000 + 3 * at + number) * _S + 654_321,
            (81_300_000 + 3 * at + number) * _S + 123_457,
        )
        left = 0 if at == verdict.shown and not verdict.allowed else 611_000_000_000_000 + 3 * at + number
        outcomes.append(Outcome(one.allowed, left, reset_us, 0 if one.allowed else retry_us, 0))
    made_up = msgspec.structs.replace(verdict, check=made_up_check, outcomes=outcomes)
    return _MadeUp(made_up, 411_000_000_000 + number, f"<id>{number}", (52_000_000 + 7 * number) * _S)


_CLIENT, _REVISION, _ID, _EPOCH, _RESET_S, _, _RETRY_S, _, _OF_LIMITS = range(9)


def _values(verdict: Verdict, revision: int, request_id: str, begin_us: int) -> list[Any]:
    """The values that templates have places for: those of the check, then two of each limit."""
    outcomes = verdict.outcomes
    shown = outcomes[verdict.shown or 0]
    header_us = shown.reset_us if verdict.allowed else shown.retry_us
    values: list[Any] = [
        verdict.check.client_json, revision, request_id.encode(), -(-(begin_us + header_us) // _S),
        *divmod(shown.reset_us, _S), *divmod(shown.retry_us, _S),
    ]  # fmt: skip
    for one in outcomes:
        values += (one.remaining, -(-(one.reset_us if one.allowed else one.retry_us) // _S))
    return values


class _Place(NamedTuple):
    """A blank of a template: how a value is written there, and which values."""

    conversion: bytes
    values: tuple[int, ...]


_MARK = re.compile(rb'"<client \d>"|<id>\d|\d{8,}(?:\.\d{6})?')
"""What a made-up verdict may have written: compiled once, as limits become known on the event loop."""
_Places = Mapping[bytes, _Place]
"""Places by the text that the made-up verdict has there."""


def _places(made_up: _MadeUp, *, is_epoch: bool) -> dict[bytes, _Place]:
    values = _values(made_up.verdict, made_up.revision, made_up.request_id, made_up.now_us if is_epoch else 0)
    figures = (_REVISION, _EPOCH, *range(_OF_LIMITS, len(values)))
    # the limit that denies has nothing left, which the template says itself
    places = {b"%d" % values[at]: _Place(b"%d", (at,)) for at in figures if values[at]}
    places |= {
        b"%d.%06d" % (values[at], values[at + 1]): _Place(b"%d.%06d", (at, at + 1))
        for at in (_RESET_S, _RETRY_S)
        if values[at]
    }
    places[values[_ID]] = _Place(b"%b", (_ID,))
    if made_up.verdict.check.principal is not None:
        places[values[_CLIENT]] = _Place(b"%b", (_CLIENT,))
    return places


def _blanked(written: bytes, places: _Places) -> tuple[bytes, list[int]]:
    """The text with its marks left blank, and the values that go there."""
    blank, end = b"", 0
    picked: list[int] = []
    for found in _MARK.finditer(written):
        place = places.get(found[0])
        if place is None:  # a number of the limit's own
            continue
        blank += written[end : found.start()].replace(b"%", b"%%") + place.conversion
        picked += place.values
        end = found.end()
    return blank + written[end:].replace(b"%", b"%%"), picked
