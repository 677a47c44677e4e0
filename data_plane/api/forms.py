"""The answer to a plainly allowed check, as a form: all that a plan and a route fix is there, figures are filled in.

Nearly every answer is of this kind. A form is made from what the careful code writes, so the two cannot differ.
"""

import msgspec

from contract.decision import Decision
from data_plane.domain.outcome import Outcome
from data_plane.domain.rulebook import Bound

_encode = msgspec.json.Encoder().encode


class Form:
    """Headers and body for one ``Bound`` of one revision."""

    __slots__ = ("_body", "_headers", "_shown", "_visible", "revision")

    def __init__(self, bound: Bound, plan: str, region: str, revision: int) -> None:
        self.revision = revision
        self._visible = tuple(at for at, limit in enumerate(bound.limits) if limit.visible)
        self._shown = bound.headline
        self._headers = _headers(bound, self._visible)
        self._body = _body(bound, plan, region, revision)

    def headers(self, outcomes: list[Outcome], begin_us: int) -> bytes:
        """The rate limit header lines; ``begin_us`` is what ``X-RateLimit-Reset`` counts from."""
        shown = outcomes[self._shown]
        figures = [shown.remaining, -(-(begin_us + shown.reset_us) // 1_000_000)]
        for at in self._visible:
            outcome = outcomes[at]
            figures += (outcome.remaining, -(-outcome.reset_us // 1_000_000))
        return self._headers % tuple(figures)

    def body(self, outcomes: list[Outcome], client: bytes, request_id: str) -> bytes:
        """The decision; ``client`` is JSON already, ``request_id`` needs no escape."""
        shown = outcomes[self._shown]
        seconds, us = divmod(shown.reset_us, 1_000_000)
        return self._body % (client, shown.remaining, seconds, us, request_id.encode())


def form_of(bound: Bound, plan: str, region: str, revision: int) -> Form | None:
    """The form for a bound, kept with it; ``None`` where the answer needs more than figures."""
    if bound.has_queue or not bound.limits or not bound.limits[bound.headline].visible:
        return None
    form = bound.form
    if not isinstance(form, Form) or form.revision != revision:
        form = bound.form = Form(bound, plan, region, revision)
    return form


def _headers(bound: Bound, visible: tuple[int, ...]) -> bytes:
    states = ", ".join(f'"{bound.limits[at].rule.name}";r=%d;t=%d' for at in visible)
    return (
        f"x-ratelimit-limit: {bound.limits[bound.headline].rule.limit}\r\n"
        "x-ratelimit-remaining: %d\r\nx-ratelimit-reset: %d\r\n"
        f"ratelimit-policy: {bound.policies}\r\nratelimit: {states}\r\n"
    ).encode("ascii")


def _body(bound: Bound, plan: str, region: str, revision: int) -> bytes:
    limit = bound.limits[bound.headline]
    encoded = _encode(
        Decision(
            allowed=True, client="<client>", plan=plan, policy=limit.rule.name, limit=limit.rule.limit,
            window_s=limit.window_s, remaining=-1, reset_after_s=-1.5, retry_after_s=None, delay_ms=0,
            shadow_denied=(), degraded=False, region=region, revision=revision, request_id="<id>",
        )
    )  # fmt: skip
    places = {b'"<client>"': b"%b", b":-1,": b":%d,", b":-1.5,": b":%d.%06d,", b"<id>": b"%b"}
    for mark, place in places.items():
        if encoded.count(mark) != 1:
            raise ValueError(f"{mark!r} is not there once: {encoded!r}")
        encoded = encoded.replace(mark, place)
    return encoded
