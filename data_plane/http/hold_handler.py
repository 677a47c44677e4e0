"""Leases and reservations over HTTP: who may ask, what was asked, and the answer with its decision."""

from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import TypeVar

import msgspec
from fastapi import APIRouter, Request, Response

from data_plane.config.index import RuleIndex
from data_plane.decide.check_resolution import UnknownNameError
from data_plane.decide.denial_log import DenialLog
from data_plane.decide.pending_check import Refusal
from data_plane.holds.service import Grant, HoldEndedError, Holds
from data_plane.holds.tokens import InvalidHoldError
from data_plane.http import openapi
from data_plane.http.answers import Answer, FieldError, InputError, json_answer, problem
from data_plane.http.caller import TOKEN_HEADER, Headers, Trust, header, identify
from data_plane.http.reading import unreadable, validate_names
from data_plane.http.render import Renderer, not_understood, refused
from data_plane.http.routes import read_body, to_response
from data_plane.store.ports import Clock, StoreUnavailableError
from data_plane.store.subjects import InvalidAddressError
from tidegate.contract.decision import MAX_BATCH_BODY_BYTES, MAX_BODY_BYTES, CheckRequest
from tidegate.contract.decoding import UNREADABLE
from tidegate.contract.holds import LeaseRequest, ReservationRequest, Return, Returned, Returns, Settled, Settlement

B = TypeVar("B")


class HoldHandler:
    """Reads requests, asks ``Holds``, renders answers. ``revision`` and ``index`` are those in force."""

    def __init__(
        self, holds: Holds, renderer: Renderer, clock: Clock, id_prefix: str, *, trust: Trust,
        index: Callable[[], RuleIndex], revision: Callable[[], int], denials: DenialLog,
    ) -> None:  # fmt: skip
        self._denials = denials
        self._holds = holds
        self._renderer = renderer
        self._clock = clock
        self._id_prefix = id_prefix
        self._numbers = count(1)
        self._trust: Trust = trust
        self._index = index
        self._revision = revision

    async def lease(self, headers: Headers, body: bytes) -> Answer:
        """``POST /v1/leases``: 200 with what was granted, 429 when not even one unit was."""
        try:
            request = self._read(headers, body, LeaseRequest)
            await self._give_back(request.returns)
            grant = await self._holds.lease(request)
            members: dict[str, object] = {"granted": 0, "lease": None, "expires_in_s": 0.0, "reason": None}
            if isinstance(grant, Grant):
                members = {
                    "granted": grant.units, "lease": grant.hold, "expires_in_s": grant.expires_in_s,
                    "reason": grant.reason,
                }  # fmt: skip
            return self._answer(request, grant, members)
        except (InputError, UnknownNameError, InvalidAddressError, StoreUnavailableError) as error:
            return _wrong(error)

    async def give_back(self, headers: Headers, body: bytes) -> Answer:
        """``POST /v1/leases/return``."""
        try:
            request = self._read(headers, body, Returns)
            return json_answer(Returned(returned=await self._give_back(request.returns)))
        except (InputError, StoreUnavailableError) as error:
            return _wrong(error)

    async def reserve(self, headers: Headers, body: bytes) -> Answer:
        """``POST /v1/reservations``: 200 with the reservation, 429 when the estimate does not fit."""
        try:
            request = self._read(headers, body, ReservationRequest)
            grant = await self._holds.reserve(request)
            members: dict[str, object] = {"reserved": 0, "reservation": None, "expires_in_s": 0.0}
            if isinstance(grant, Grant):
                members = {"reserved": grant.units, "reservation": grant.hold, "expires_in_s": grant.expires_in_s}
            return self._answer(request, grant, members)
        except (InputError, UnknownNameError, InvalidAddressError, StoreUnavailableError) as error:
            return _wrong(error)

    async def settle(self, headers: Headers, body: bytes) -> Answer:
        """``POST /v1/reservations/settle``: 200, or 409 when its time is over or it was settled otherwise."""
        try:
            request = self._read(headers, body, Settlement)
            returned, charged, repeated = await self._holds.settle(request.reservation, request.cost)
            return json_answer(Settled(returned=returned, charged=charged, repeated=repeated))
        except InvalidHoldError as error:
            return _wrong(InputError(422, f"reservation: {error}", [FieldError("reservation", str(error))]))
        except HoldEndedError as error:
            return problem(409, str(error), error="reservation_ended")
        except (InputError, StoreUnavailableError) as error:
            return _wrong(error)

    def _read(self, headers: Headers, body: bytes, kind: type[B]) -> B:
        """The body, from a caller that may speak for clients. Raises ``InputError``."""
        gateways = self._index().book.gateways.get
        caller = identify(header(headers, TOKEN_HEADER), self._trust, gateways, self._clock.now_us() / 1_000_000)
        if caller is None or not caller.trusted:
            raise InputError(401, "a valid gateway token is needed in X-Tidegate-Token")
        try:
            request = msgspec.json.decode(body, type=kind)
        except UNREADABLE as error:
            raise unreadable(error) from error
        if isinstance(request, (LeaseRequest, ReservationRequest)):
            validate_names(request, body)
        return request

    async def _give_back(self, returns: Sequence[Return]) -> list[int]:
        """Give all of them back, or none where one is no lease of ours."""
        leases = []
        for position, given in enumerate(returns):
            try:
                leases.append(self._holds.lease_of(given.lease))
            except InvalidHoldError as error:
                field = f"returns[{position}].lease"
                raise InputError(422, f"{field}: {error}", [FieldError(field, str(error))]) from error
        return [await self._holds.give_back(lease, given.unused) for lease, given in zip(leases, returns, strict=True)]

    def _answer(
        self, request: LeaseRequest | ReservationRequest, grant: Grant | Refusal, members: dict[str, object]
    ) -> Answer:
        request_id = f"{self._id_prefix}h{next(self._numbers):x}"
        result = grant if isinstance(grant, Refusal) else grant.verdict
        if isinstance(result, Refusal) or not result.allowed:
            cost = request.cost if isinstance(request, ReservationRequest) else 1  # less of a lease would have done
            asked = CheckRequest(
                api_key=request.api_key, client=request.client, ip=request.ip, endpoint=request.endpoint, cost=cost
            )
            self._denials.not_held(asked, request_id, self._index(), self._revision(), result, self._clock.now_us())
        if isinstance(grant, Refusal):
            return refused(grant, request_id)
        answer = self._renderer.check(grant.verdict, CheckRequest(), self._revision(), request_id, self._clock.now_us())
        # One object: the decision's members, then those of the hold.
        body = answer.body[:-1] + b"," + msgspec.json.encode(members)[1:]
        return msgspec.structs.replace(answer, body=body)


def _wrong(error: InputError | UnknownNameError | InvalidAddressError | StoreUnavailableError) -> Answer:
    if isinstance(error, StoreUnavailableError):
        return problem(503, "the region's store does not answer", error="store_unavailable", reason=error.reason)
    if isinstance(error, InputError):
        return error.answer()
    return not_understood(error).answer()


def hold_routes(handler: HoldHandler) -> APIRouter:
    """``/v1/leases`` and ``/v1/reservations``."""
    router = APIRouter()

    async def serve(request: Request, most: int, ask: Callable[[Headers, bytes], Awaitable[Answer]]) -> Response:
        return to_response(await ask(request.scope["headers"], await read_body(request, most)))

    @router.post("/v1/leases", **openapi.LEASE)
    async def lease(request: Request) -> Response:
        """Take units for a short time, to decide without asking; what is not spent is to be returned."""
        return await serve(request, MAX_BATCH_BODY_BYTES, handler.lease)

    @router.post("/v1/leases/return", **openapi.LEASE_RETURN)
    async def give_back(request: Request) -> Response:
        """Return what leases did not spend. Each lease is returned once."""
        return await serve(request, MAX_BATCH_BODY_BYTES, handler.give_back)

    @router.post("/v1/reservations", **openapi.RESERVATION)
    async def reserve(request: Request) -> Response:
        """Take an estimate of a cost that is known only afterwards."""
        return await serve(request, MAX_BODY_BYTES, handler.reserve)

    @router.post("/v1/reservations/settle", **openapi.SETTLEMENT)
    async def settle(request: Request) -> Response:
        """Settle a reservation at its true cost; the same settlement may be sent again."""
        return await serve(request, MAX_BODY_BYTES, handler.settle)

    return router
