"""The answer to a plain denial, as a form: who hammers a limit is denied over and over, and that has to be cheap.

A form is derived from what the careful code writes for figures that stand out, and kept only if, filled with other
figures, it is byte for byte what the careful code writes for those: so the two cannot differ.
"""

import re
from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from data_plane.config.index import Principal
from data_plane.decide.causes import cause_of_denial
from data_plane.decide.pending_check import ResolvedCheck, Verdict
from data_plane.http.answers import Answer
from data_plane.store.outcome import NEVER, Outcome
from tidegate.contract.config import Client

Careful = Callable[[Verdict, int, str, int], Answer]
"""What the careful code makes of a verdict, the revision, the id and the node's clock."""
Places = dict[bytes, tuple[bytes, tuple[int, ...]]]
"""Where a form is left blank: what stands there, how a value is written, and which values."""
_S = 1_000_000
_MOST_FORMS = 64
"""For the limits of one route: which of them deny makes a form."""


class _Asked(NamedTuple):
    """A denial made up to derive a form from, or to try it with."""

    verdict: Verdict
    revision: int
    request_id: str
    now_us: int


class DenialTemplate:
    """Headers and body of the denials by the same of a route's limits, of which it says everything but the figures,
    the client and the check's id.
    """

    __slots__ = ("_body", "_body_values", "_headers", "_headers_values", "_is_epoch", "_status")

    def __init__(self, answer: Answer, places: Places, *, is_epoch: bool) -> None:
        self._status = answer.status
        self._is_epoch = is_epoch
        marks = re.compile(b"|".join(map(re.escape, sorted(places, key=len, reverse=True))))
        self._headers, self._headers_values = _blank(answer.headers, marks, places)
        self._body, self._body_values = _blank(answer.body, marks, places)

    def filled(self, verdict: Verdict, revision: int, request_id: str, now_us: int) -> Answer:
        """The answer to such a denial."""
        values = _values(verdict, revision, request_id, now_us if self._is_epoch else 0)
        return Answer(
            self._status, self._headers % self._headers_values(values), self._body % self._body_values(values)
        )


def denial_form(
    forms: dict[Any, DenialTemplate | None], kind: str, verdict: Verdict, careful: Careful, *, is_epoch: bool
) -> DenialTemplate | None:
    """The form for a denial, out of those kept in ``forms`` or made now; ``None`` where there can be none.

    ``kind`` names the careful code, which must make the same of the same limits every time; ``is_epoch``:
    ``X-RateLimit-Reset`` counts from the epoch, not from now.
    """
    if verdict.shed_s or verdict.by_load or verdict.degraded or verdict.shadow_denied or verdict.shown is None:
        return None
    if cause_of_denial(verdict) != "used_up":  # any other says more figures
        return None
    waits = [one.retry_us for one in verdict.outcomes]
    if NEVER in waits:
        return None
    key = kind, verdict.check.principal is None, verdict.shown, *map(bool, waits)
    if key in forms:
        return forms[key]
    if len(forms) >= _MOST_FORMS:
        return None
    form = forms[key] = _made(verdict, careful, is_epoch=is_epoch)
    return form


def _made(verdict: Verdict, careful: Careful, *, is_epoch: bool) -> DenialTemplate | None:
    one, other = _made_up(verdict, 0), _made_up(verdict, 1)
    form = DenialTemplate(careful(*one), _places(one, is_epoch=is_epoch), is_epoch=is_epoch)
    return form if form.filled(*other) == careful(*other) else None


def _made_up(verdict: Verdict, number: int) -> _Asked:
    """A denial by the same limits with figures that are found again wherever they are written."""
    check = verdict.check
    name = f"<client {number}>"
    client = Client(client=name, plan=check.plan)
    principal = Principal(client, check.plan, b"", b"", msgspec.json.encode(name), check.plan)
    who = None if check.principal is None else principal
    made_up_check = ResolvedCheck(check.request, who, check.bound, check.keys, check.cost)
    outcomes = []
    for at, one in enumerate(verdict.outcomes):
        # whole seconds differ from one figure to the next, and each has microseconds that are written in full
        reset_us, retry_us = (
            (71_200_000 + 3 * at + number) * _S + 654_321,
            (81_300_000 + 3 * at + number) * _S + 123_457,
        )
        left = 0 if at == verdict.shown else 611_000_000_000_000 + 3 * at + number
        outcomes.append(Outcome(one.allowed, left, reset_us, 0 if one.allowed else retry_us, 0))
    made_up = msgspec.structs.replace(verdict, check=made_up_check, outcomes=outcomes)
    return _Asked(made_up, 411_000_000_000 + number, f"<id {number}>", (52_000_000 + 7 * number) * _S)


_CLIENT, _REVISION, _ID, _EPOCH, _RESET_S, _, _RETRY_S, _, _OF_LIMITS = range(9)


def _values(verdict: Verdict, revision: int, request_id: str, begin_us: int) -> list[Any]:
    """All that forms have places for: what is known of the check, then two figures of each limit."""
    outcomes = verdict.outcomes
    shown = outcomes[verdict.shown or 0]
    values: list[Any] = [
        verdict.check.client_json, revision, request_id.encode(), -(-(begin_us + shown.retry_us) // _S),
        *divmod(shown.reset_us, _S), *divmod(shown.retry_us, _S),
    ]  # fmt: skip
    for one in outcomes:
        values += (one.remaining, -(-(one.reset_us if one.allowed else one.retry_us) // _S))
    return values


def _places(asked: _Asked, *, is_epoch: bool) -> Places:
    values = _values(asked.verdict, asked.revision, asked.request_id, asked.now_us if is_epoch else 0)
    figures = (_REVISION, _EPOCH, *range(_OF_LIMITS, len(values)))
    # nothing is left of the limit that is shown: a form says that itself
    places: Places = {b"%d" % values[at]: (b"%d", (at,)) for at in figures if values[at]}
    places |= {b"%d.%06d" % (values[at], values[at + 1]): (b"%d.%06d", (at, at + 1)) for at in (_RESET_S, _RETRY_S)}
    places[values[_ID]] = b"%b", (_ID,)
    if asked.verdict.check.principal is not None:
        places[values[_CLIENT]] = b"%b", (_CLIENT,)
    return places


def _blank(written: bytes, marks: "re.Pattern[bytes]", places: Places) -> tuple[bytes, Callable[[list[Any]], Any]]:
    """What was written with its marks left blank, and what picks from the values those that go there."""
    blank, end = b"", 0
    picked: list[int] = []
    for found in marks.finditer(written):
        how, which = places[found[0]]
        blank += written[end : found.start()].replace(b"%", b"%%") + how
        picked += which
        end = found.end()
    return blank + written[end:].replace(b"%", b"%%"), itemgetter(*picked)
