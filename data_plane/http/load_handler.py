"""Where load is reported: by reporters for the backends they are bound to, by gateways for what they forwarded.

A batch is accepted or refused as a whole; a refused one changes nothing and is counted by its reason.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import TypeVar

import msgspec
from fastapi import APIRouter, Request, Response

from data_plane.config.routes import UNMATCHED
from data_plane.config.rulebook import Rulebook
from data_plane.http import openapi
from data_plane.http.answers import JSON_TYPE, Answer, FieldError, InputError
from data_plane.http.caller import TOKEN_HEADER, Headers, Trust, header, identify
from data_plane.http.reading import unreadable
from data_plane.http.routes import read_body, to_response
from data_plane.load.controller import MAX_AHEAD_US
from data_plane.load.following import LoadReports
from data_plane.store.ports import Clock
from tidegate.contract.decision import MAX_BATCH_BODY_BYTES, MAX_BODY_BYTES
from tidegate.contract.decoding import UNREADABLE, UnreadableError
from tidegate.contract.load import MAX_LOAD_REPORTS, MAX_SERVED_REPORTS, LoadReport, Reporter, ServedReport

Item = TypeVar("Item", LoadReport, ServedReport)
NETWORK_GATEWAY = "network"
"""The gateway's name where the network is trusted."""


class _Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    reports: list[msgspec.Raw]


_batch_decoder = msgspec.json.Decoder(_Batch)
_members_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_load_decoder = msgspec.json.Decoder(LoadReport)
_served_decoder = msgspec.json.Decoder(ServedReport)


def load_routes(handler: "LoadHandler") -> APIRouter:
    """``/v1/load`` and ``/v1/report``."""
    router = APIRouter()

    @router.post("/v1/load", status_code=202, **openapi.LOAD)
    async def load(request: Request) -> Response:
        """How busy backends are; needs a reporter's credential, which is bound to them."""
        body = await read_body(request, MAX_BODY_BYTES)
        return to_response(handler.load(request.scope["headers"], body))

    @router.post("/v1/report", status_code=202, **openapi.REPORT)
    async def report(request: Request) -> Response:
        """What became of requests that a gateway forwarded; needs a gateway token."""
        body = await read_body(request, MAX_BATCH_BODY_BYTES)
        return to_response(handler.served(request.scope["headers"], body))

    return router


class LoadHandler:
    """``POST /v1/load`` and ``POST /v1/report``."""

    def __init__(self, book: Callable[[], Rulebook], reports: LoadReports, clock: Clock, trust: Trust) -> None:
        self._book = book
        self._reports = reports
        self._clock = clock
        self._trust: Trust = trust

    def load(self, headers: Headers, body: bytes) -> Answer:
        """How busy backends are, by a reporter bound to them: one report, or ``{"reports": [...]}``."""
        now_us = self._clock.now_us()
        try:
            reporter = self._reporter(headers, now_us)
            items = self._items(body, _load_decoder, MAX_LOAD_REPORTS)
            for place, item in items:
                self._check(reporter, item, place, now_us)
            for _, item in items:
                self._reports.take(reporter.reporter, item, now_us)
        except InputError as error:
            return error.answer()
        return _taken(len(items))

    def served(self, headers: Headers, body: bytes) -> Answer:
        """What became of requests that a gateway forwarded: one report, or ``{"reports": [...]}``."""
        now_us = self._clock.now_us()
        try:
            gateway = self._gateway(headers, now_us)
            items = self._items(body, _served_decoder, MAX_SERVED_REPORTS)
            backends = [self._backend_of(item, place) for place, item in items]
            for (_, item), backend in zip(items, backends, strict=True):
                if backend is not None:
                    self._reports.take_served(gateway, backend, item.status, item.latency_ms)
        except InputError as error:
            return error.answer()
        return _taken(len(items))

    def _reporter(self, headers: Headers, now_us: int) -> Reporter:
        token = header(headers, TOKEN_HEADER)
        digest = None if token is None else sha256(token).hexdigest()
        reporter = None if digest is None else self._book().reporters.get(digest)
        if reporter is not None and digest != reporter.sha256:  # the credential before the last rotation
            until = reporter.previous_expires_at
            reporter = reporter if until is not None and now_us < until * 1_000_000 else None
        if reporter is None:
            raise self._refused("unauthenticated", 401, "a reporter's credential is needed in X-Tidegate-Token")
        return reporter

    def _gateway(self, headers: Headers, now_us: int) -> str:
        caller = identify(header(headers, TOKEN_HEADER), self._trust, self._book().gateways.get, now_us / 1_000_000)
        if caller is None or not caller.trusted:
            raise self._refused("unauthenticated", 401, "a valid gateway token is needed in X-Tidegate-Token")
        return NETWORK_GATEWAY if caller.gateway is None else caller.gateway.gateway

    def _items(self, body: bytes, decoder: "msgspec.json.Decoder[Item]", most: int) -> Sequence[tuple[str, Item]]:
        """The reports, each with its place in the body: ``reports[0]``, or nothing for one that was sent alone."""
        try:
            is_list = "reports" in _members_decoder.decode(body)
            raw: Sequence[msgspec.Raw | bytes] = _batch_decoder.decode(body).reports if is_list else [body]
        except UNREADABLE as error:
            raise self._malformed(error) from None
        if not 1 <= len(raw) <= most:
            raise self._refused(
                "malformed", 422, "wrong number of reports", [FieldError("reports", f"from 1 to {most}")]
            )
        items = []
        for number, one in enumerate(raw):
            place = f"reports[{number}]" if is_list else ""
            try:
                items.append((place, decoder.decode(one)))
            except UNREADABLE as error:
                raise self._malformed(error, place) from None
        return items

    def _check(self, reporter: Reporter, item: LoadReport, place: str, now_us: int) -> None:
        if item.backend not in reporter.backends:
            message = "this reporter is not bound to the backend"
            raise self._refused("forged", 403, message, [_wrong(place, "backend", message)])
        if not item.signals():
            raise self._refused("malformed", 422, "no signal", [_wrong(place, "", "name at least one signal")])
        if item.at is None:
            return
        protected = self._book().protected.get(item.backend)
        stale_after_s = 60.0 if protected is None else protected[1].stale_after_s
        if not now_us - stale_after_s * 1_000_000 <= item.at * 1_000_000 <= now_us + MAX_AHEAD_US:
            message = f"must be an instant within the last {stale_after_s:g} s"
            raise self._refused("stale", 422, f"at: {message}", [_wrong(place, "at", message)])

    def _backend_of(self, item: ServedReport, place: str) -> str | None:
        """The backend that a request went to; ``None`` for routes without one."""
        book = self._book()
        if item.backend is not None:
            if item.backend not in book.backends:
                raise self._unknown(place, "backend", item.backend)
            return item.backend
        if item.endpoint is not None:
            endpoint = book.routes.by_name.get(item.endpoint)
            if endpoint is None:
                raise self._unknown(place, "endpoint", item.endpoint)
        elif item.path is not None:
            endpoint = book.routes.match(item.method or "GET", item.path)
        else:
            message = "name the backend, the endpoint, or method and path"
            raise self._refused("malformed", 422, message, [_wrong(place, "", message)])
        return None if endpoint is UNMATCHED else endpoint.backend

    def _unknown(self, place: str, field: str, value: str) -> InputError:
        message = f"{value[:64]!r} is not configured"
        return self._refused("unknown", 422, message, [_wrong(place, field, message)])

    def _malformed(self, error: UnreadableError, at: str = "") -> InputError:
        self._reports.refused["malformed"] += 1
        return unreadable(error, at)

    def _refused(self, reason: str, status: int, detail: str, errors: Sequence[FieldError] = ()) -> InputError:
        self._reports.refused[reason] += 1
        return InputError(status, detail, errors)


def _wrong(place: str, field: str, message: str) -> FieldError:
    """What is wrong with a member of a report, or without ``field`` with the report."""
    return FieldError(".".join(filter(None, (place, field))) or "(body)", message)


def _taken(count: int) -> Answer:
    return Answer(202, JSON_TYPE, b'{"taken":%d}' % count)
