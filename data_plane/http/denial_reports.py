"""``POST /v1/denials``: client libraries report what they denied from memory."""

from collections.abc import Callable

import msgspec
from fastapi import APIRouter, Request, Response

from data_plane.config.index import RuleIndex
from data_plane.http import openapi
from data_plane.http.answers import JSON_TYPE, Answer, InputError
from data_plane.http.caller import TOKEN_HEADER, Headers, Trust, header, identify
from data_plane.http.reading import unreadable, validate_names
from data_plane.http.routes import read_body, to_response
from data_plane.store.ports import Clock
from data_plane.usage.repeated_denials import RepeatedDenials
from tidegate.contract.decision import MAX_BATCH_BODY_BYTES
from tidegate.contract.decoding import UNREADABLE
from tidegate.contract.denials import RepeatedDenials as Report

_decode = msgspec.json.Decoder(Report).decode


class DenialReports:
    """Reads reports of trusted callers; a stranger could invent another client's usage."""

    def __init__(self, denials: RepeatedDenials, clock: Clock, trust: Trust, index: Callable[[], RuleIndex]) -> None:
        self._denials = denials
        self._clock = clock
        self._trust: Trust = trust
        self._index = index

    def take(self, headers: Headers, body: bytes) -> Answer:
        """202 with the number of denials counted."""
        try:
            gateways = self._index().book.gateways.get
            caller = identify(header(headers, TOKEN_HEADER), self._trust, gateways, self._clock.now_us() / 1_000_000)
            if caller is None:
                raise InputError(401, "a valid gateway token is needed in X-Tidegate-Token")
            if not caller.trusted:
                raise InputError(403, "needs a gateway token (X-Tidegate-Token)")
            try:
                report = _decode(body)
            except UNREADABLE as error:
                raise unreadable(error) from error
            for position, denial in enumerate(report.denials):
                validate_names(denial, body, f"denials[{position}].")
        except InputError as error:
            return error.answer()
        return Answer(202, JSON_TYPE, b'{"taken":%d}' % self._denials.take(report.denials))


def denial_routes(reports: DenialReports) -> APIRouter:
    """``/v1/denials``."""
    router = APIRouter()

    @router.post("/v1/denials", status_code=202, **openapi.DENIALS)
    async def take(request: Request) -> Response:
        """Report what a client library denied from memory; needs a gateway token."""
        body = await read_body(request, MAX_BATCH_BODY_BYTES)
        return to_response(reports.take(request.scope["headers"], body))

    return router
