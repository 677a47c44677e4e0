"""``GET /v1/me/limits``: shows a client, by its own key, what is left of its limits and when they are full again."""

from collections.abc import Callable
from itertools import count

import msgspec
from fastapi import APIRouter, Request, Response

from data_plane.config.index import Principal, RuleIndex
from data_plane.decide.check_resolution import blocked
from data_plane.decide.limits_now import is_tellable, limits_now
from data_plane.decide.pending_check import Refusal
from data_plane.http import openapi
from data_plane.http.answers import Answer, InputError, json_answer, problem
from data_plane.http.caller import TOKEN_HEADER, Headers, Trust, header, identify
from data_plane.http.forward_auth import RefusedInputError, api_key_of, known_fields
from data_plane.http.render import refused, refused_input
from data_plane.http.routes import to_response
from data_plane.store.ports import Clock, CounterStore, StoreUnavailableError
from data_plane.store.subjects import ordered_dimensions
from tidegate.contract.limits import LimitRule, is_visible, nominal_window_us
from tidegate.contract.questions import LimitFigure

BURST, PER_S = 5, 1.0
"""Requests a second of one client: they consume none of its limits, but cost a call of the store."""
MAX_LIMITS = 100
_MAX_CLIENTS = 10_000


class MyLimit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit; ``used``, ``remaining`` and ``reset_after_s`` are this region's, ``None`` where a client has many
    counters of it (by address or endpoint, say).
    """

    policy: str
    scope: str
    algorithm: str
    limit: int
    window_s: float
    used: int | None
    remaining: int | None
    reset_after_s: float | None


class MyLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The answer."""

    client: str
    plan: str
    region: str
    limits: list[MyLimit]


class Pace:
    """A token bucket for each client in this node's memory. At its bound of clients all buckets begin anew."""

    def __init__(self) -> None:
        self._full_at_us: dict[str, int] = {}

    def __len__(self) -> int:
        """How many clients have a bucket."""
        return len(self._full_at_us)

    def wait_s(self, name: str, now_us: int) -> float:
        """Take a token: 0 where there was one, else the seconds to wait."""
        each_us = int(1_000_000 / PER_S)
        full_at_us = max(now_us, self._full_at_us.get(name, 0)) + each_us
        over_us = full_at_us - now_us - BURST * each_us
        if over_us > 0:
            return over_us / 1_000_000
        if len(self._full_at_us) >= _MAX_CLIENTS:
            self._full_at_us.clear()
        self._full_at_us[name] = full_at_us
        return 0.0


class MeHandler:
    """Reads the key and asks the store. ``origins``: web origins whose pages may read the answer; ``*`` allows all."""

    def __init__(
        self, index: Callable[[], RuleIndex], store: CounterStore, clock: Clock, id_prefix: str, *,
        trust: Trust, key_sources: tuple[str, ...], origins: tuple[str, ...],
    ) -> None:  # fmt: skip
        self._index = index
        self._store = store
        self._clock = clock
        self._id_prefix = id_prefix
        self._trust: Trust = trust
        self._numbers = count(1)
        self._key_sources = tuple(source.encode() for source in key_sources)
        self._origins = frozenset(origins)
        self._pace = Pace()

    async def limits(self, headers: Headers) -> Answer:
        """200 with the limits, 401 or 403 as a decision would be, 429 when asked too often, 503 without the store."""
        try:
            answer = await self._answer(self._principal(headers))
        except _RefusedError as error:
            answer = refused(error.refusal, f"{self._id_prefix}m{next(self._numbers):x}")
        except RefusedInputError as error:
            answer = refused_input(error)
        except InputError as error:
            answer = error.answer()
        except StoreUnavailableError as error:
            answer = problem(503, "the region's store does not answer", error="store_unavailable", reason=error.reason)
        return self._with_headers(headers, answer, b"")

    def preflight(self, headers: Headers) -> Answer:
        """The answer to a CORS preflight request."""
        allow = b"access-control-allow-methods: GET\r\naccess-control-allow-headers: authorization, x-api-key\r\n"
        return self._with_headers(headers, Answer(204, b"", b""), allow + b"access-control-max-age: 600\r\n")

    def _principal(self, headers: Headers) -> Principal:
        index, now_us = self._index(), self._clock.now_us()
        if identify(header(headers, TOKEN_HEADER), self._trust, index.book.gateways.get, now_us / 1_000_000) is None:
            raise InputError(401, "a valid gateway token is needed in X-Tidegate-Token")
        key = api_key_of(known_fields(headers), self._key_sources)
        if key is None:
            raise _RefusedError(Refusal.MISSING_KEY)
        principal = index.principal_of(key, now_us)
        if principal is None:
            raise _RefusedError(Refusal.UNKNOWN_KEY)
        if principal.client.status == "suspended":
            raise _RefusedError(Refusal.SUSPENDED)
        refusal = None if index.blocks is None else blocked(index.blocks, principal, "", None, now_us / 1_000_000)
        if refusal is not None:
            raise _RefusedError(refusal)
        return principal

    async def _answer(self, principal: Principal) -> Answer:
        now_us = self._clock.now_us()
        client, book = principal.client, self._index().book
        wait_s = self._pace.wait_s(client.client, now_us)
        if wait_s:
            answer = problem(429, f"ask at most {BURST} times at once, and {PER_S:g} a second", error="asked_too_often")
            return msgspec.structs.replace(answer, headers=answer.headers + b"retry-after: %d\r\n" % -(-wait_s // 1))
        rules = [one for one in book.all_limits(client, now_us / 1_000_000) if is_visible(one) and not one.shadow]
        rules = rules[:MAX_LIMITS]
        tellable = [rule for rule in rules if is_tellable(rule)]
        figures = {figure.rule_id: figure for figure in await limits_now(self._store, book, principal, tellable)}
        limits = [_shown(rule, figures.get(rule.id)) for rule in rules]
        return json_answer(MyLimits(client=client.client, plan=client.plan, region=book.region, limits=limits))

    def _with_headers(self, headers: Headers, answer: Answer, allow: bytes) -> Answer:
        more = b"" if b"cache-control" in answer.headers else b"cache-control: no-store\r\n"
        origin = header(headers, b"origin")
        if origin is not None and self._origins and (origin.decode("latin-1") in self._origins or "*" in self._origins):
            more += b"access-control-allow-origin: " + origin + b"\r\naccess-control-expose-headers: retry-after\r\n"
            more += allow
        if self._origins:
            more += b"vary: origin\r\n"
        return msgspec.structs.replace(answer, headers=answer.headers + more)


class _RefusedError(Exception):
    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


def _shown(rule: LimitRule, figure: LimitFigure | None) -> MyLimit:
    return MyLimit(
        policy=rule.name,
        scope="+".join(ordered_dimensions(rule.scope)),
        algorithm=rule.algorithm,
        limit=rule.limit if figure is None else figure.limit,
        window_s=nominal_window_us(rule) / 1_000_000,
        used=None if figure is None else figure.used,
        remaining=None if figure is None else figure.remaining,
        reset_after_s=None if figure is None else figure.reset_s,
    )


def me_routes(handler: MeHandler) -> APIRouter:
    """``/v1/me/limits``."""
    router = APIRouter()

    @router.get("/v1/me/limits", **openapi.ME)
    async def my_limits(request: Request) -> Response:
        """A client's own limits in this region, by its own key, and what is left of each. Costs nothing."""
        return to_response(await handler.limits(request.scope["headers"]))

    @router.options("/v1/me/limits", include_in_schema=False)
    async def preflight(request: Request) -> Response:
        return to_response(handler.preflight(request.scope["headers"]))

    return router
