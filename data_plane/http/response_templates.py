"""The answer to a plainly allowed check, as a form: all that a plan and a route fix is there, figures are filled in.

Nearly every answer is of this kind. A form is made from what the careful code writes, so the two cannot differ; a form
that cannot be made (a queue's turn, a limit that is not to be seen) leaves the answer to the careful code.
"""

from collections.abc import Sequence

import msgspec

from data_plane.config.limit_set import LimitSet
from data_plane.http.answers import JSON_TYPE
from data_plane.http.rate_limit_headers import ResetFormat
from data_plane.store.packing import FIGURES
from tidegate.contract.decision import Decision

_encode = msgspec.json.Encoder().encode


class ResponseTemplate:
    """Headers and body for one ``LimitSet``: it says everything but the figures, the client and the check's id.

    ``usable`` says whether it may be filled in at all; ``single`` that there is one limit. ``headers`` takes what
    ``header_figures`` gives; ``body`` takes the client as JSON, remaining, whole seconds and microseconds of
    reset_after_s, the revision, and the two parts of the request id.
    """

    __slots__ = (
        "_blank",
        "_hides",
        "_is_triple",
        "_visible",
        "begins_now",
        "body",
        "headers",
        "json_headers",
        "shown",
        "single",
        "usable",
    )

    def __init__(self, bound: LimitSet, plan: str, region: str, reset_format: ResetFormat) -> None:
        self.usable = (
            bool(bound.limits) and not (bound.has_queue or bound.rights) and bound.limits[bound.headline].visible
        )
        self.single = self.usable and len(bound.limits) == 1
        self.shown = FIGURES * bound.headline
        """Where the figures of the headline limit begin."""
        self.begins_now = reset_format == "epoch"
        """Whether ``X-RateLimit-Reset`` counts from the epoch, not from now."""
        self._visible = tuple(FIGURES * at for at, limit in enumerate(bound.limits) if limit.visible)
        self._hides = len(self._visible) < len(bound.limits)
        self._is_triple = len(bound.limits) == 3 and not self._hides
        self._blank = [0] * (2 + 2 * len(self._visible))
        self.headers = _headers(bound) if self.usable else b""
        self.json_headers = JSON_TYPE + self.headers
        self.body = _body(bound, plan, region) if self.usable else b""

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
        self, own: Sequence[int], client: bytes, revision: int, id_prefix: bytes, id_number: int
    ) -> bytes:  # fmt: skip
        """The decision; ``client`` is JSON already."""
        seconds, us = divmod(own[self.shown + 1], 1_000_000)
        return self.body % (client, own[self.shown], seconds, us, revision, id_prefix, id_number)


def _headers(bound: LimitSet) -> bytes:
    states = ", ".join(f'"{limit.rule.name}";r=%d;t=%d' for limit in bound.limits if limit.visible)
    return (
        f"x-ratelimit-limit: {bound.limits[bound.headline].rule.limit}\r\n"
        "x-ratelimit-remaining: %d\r\nx-ratelimit-reset: %d\r\n"
        f"ratelimit-policy: {bound.policies}\r\nratelimit: {states}\r\n"
    ).encode("ascii")


def _body(bound: LimitSet, plan: str, region: str) -> bytes:
    limit = bound.limits[bound.headline]
    encoded = _encode(
        Decision(
            allowed=True, client="<client>", plan=plan, policy=limit.rule.name, limit=limit.rule.limit,
            window_s=limit.window_s, remaining=-1, reset_after_s=-1.5, retry_after_s=None, delay_ms=0,
            shadow_denied=(), degraded=False, region=region, revision=-2, request_id="<id>",
        )
    ).replace(b"%", b"%%")  # fmt: skip
    places = {
        b'"<client>"': b"%b", b":-1,": b":%d,", b":-1.5,": b":%d.%06d,", b":-2,": b":%d,", b"<id>": b"%b%d",
    }  # fmt: skip
    for mark, place in places.items():
        if encoded.count(mark) != 1:
            raise ValueError(f"{mark!r} is not there once: {encoded!r}")
        encoded = encoded.replace(mark, place)
    return encoded
