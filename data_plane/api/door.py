"""The decision endpoints apart from how bytes arrive: the FastAPI routes and the decision lane both end here."""

from collections.abc import Callable, Iterable

import msgspec

from contract.decision import MAX_BATCH, MAX_BATCH_BODY_BYTES, MAX_BODY_BYTES, CheckRequest
from data_plane.api.answers import JSON_TYPE, Answer, FieldError, InputError, problem
from data_plane.api.caller import NETWORK, REQUEST_ID_HEADER, Caller, Headers, Trust, header, identify
from data_plane.api.forward_auth import DIALECTS, DialectName, RefusedInputError
from data_plane.api.forward_auth import read as read_forward_auth
from data_plane.api.render import Renderer, batch_item_error, not_understood, refused
from data_plane.api.replays import Replays
from data_plane.domain.check import Refusal, UnknownNameError, Verdict
from data_plane.domain.subjects import MAX_ATTRIBUTE_BYTES, InvalidAddressError
from data_plane.services.decide import Decider
from data_plane.services.ports import Clock

Reply = Callable[[Answer], None]
_ESCAPE = b"\\"
_MAX_ATTRIBUTES = 16
_check_decoder = msgspec.json.Decoder(CheckRequest)


class Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``/v1/check/batch``; items are read one by one, so that a bad one spoils no other."""

    checks: list[msgspec.Raw]


_batch_decoder = msgspec.json.Decoder(Batch)


class Door:
    """Reads requests, asks the decider, renders answers. Each method replies exactly once and never raises."""

    def __init__(
        self, decider: Decider, renderer: Renderer, clock: Clock, request_ids: Iterable[str], *,
        trust: Trust, dialect: DialectName, key_sources: tuple[str, ...], trusted_hops: int,
    ) -> None:  # fmt: skip
        self._decider = decider
        self._renderer = renderer
        self._clock = clock
        self._next_id = iter(request_ids).__next__
        self._trust: Trust = trust
        self._dialect = dialect
        self._key_sources = key_sources
        self._trusted_hops = trusted_hops
        self._replays = Replays()

    def check(self, headers: Headers, body: bytes, reply: Reply) -> None:
        """``POST /v1/check``."""
        try:
            caller = NETWORK if self._trust == "network" else self._caller(headers)
            if len(body) > MAX_BODY_BYTES:
                raise InputError(413, f"the body is over {MAX_BODY_BYTES} bytes")
            request = _understood(body, caller)
            revision, request_id = self._decider.revision, request.request_id or self._next_id()

            def decided(result: Verdict | Refusal, now_us: int) -> None:
                reply(self._renderer.check(result, request, revision, request_id, now_us))

            self._decider.decide(request, decided)
        except InputError as error:
            reply(error.answer())
        except (UnknownNameError, InvalidAddressError) as error:
            reply(not_understood(error).answer())

    def check_batch(self, headers: Headers, body: bytes, reply: Reply) -> None:
        """``POST /v1/check/batch``: answered when the last of its decisions is there, in order."""
        try:
            caller = NETWORK if self._trust == "network" else self._caller(headers)
            if len(body) > MAX_BATCH_BODY_BYTES:
                raise InputError(413, f"the body is over {MAX_BATCH_BODY_BYTES} bytes")
            items = _items(body)
            if not 1 <= len(items) <= MAX_BATCH:
                raise InputError(422, "wrong number of checks", [FieldError("checks", f"from 1 to {MAX_BATCH}")])
        except InputError as error:
            reply(error.answer())
            return
        batch = _BatchInProgress(len(items), reply)
        for position, item in enumerate(items):
            self._decide_item(batch, position, item, caller)

    def _decide_item(self, batch: "_BatchInProgress", position: int, item: msgspec.Raw, caller: Caller) -> None:
        """One item of a batch; a bad one is answered in its place."""
        try:
            request = _understood(item, caller)
            revision, request_id = self._decider.revision, request.request_id or self._next_id()

            def decided(result: Verdict | Refusal, _now_us: int) -> None:
                if isinstance(result, Refusal):
                    batch.place(position, refused(result, request_id).body)
                else:
                    batch.place(position, self._renderer.decision(result, request, revision, request_id))

            self._decider.decide(request, decided)
        except InputError as error:
            batch.place(position, msgspec.json.encode(batch_item_error(error)))
        except (UnknownNameError, InvalidAddressError) as error:
            batch.place(position, msgspec.json.encode(batch_item_error(not_understood(error))))

    def authorize(self, method: str, target: str, headers: Headers, reply: Reply) -> None:
        """``/v1/authorize`` and below: 200, 401, 403 or 429, whatever an end client sends."""
        reply_as = reply
        try:
            caller = self._caller(headers)
            gateway = caller.gateway
            asked = read_forward_auth(
                method, target, headers,
                dialect=DIALECTS[(gateway.dialect if gateway is not None else None) or self._dialect],
                by_token=gateway is not None, key_sources=self._key_sources, trusted_hops=self._trusted_hops,
            )  # fmt: skip
            if asked.deny_as_403:
                reply_as = _nginx_reply(reply)
            named = header(headers, REQUEST_ID_HEADER) if gateway is not None else None
            if gateway is not None and named is not None:
                first = self._replays.first_time((gateway.gateway, named), reply_as, self._clock.now_us())
                if first is None:
                    return
                reply_as = first
            self._authorize(asked.check, reply_as)
        except RefusedInputError as error:
            reply_as(problem(error.status, error.message, error=error.error, message=error.message))
        except (UnknownNameError, InvalidAddressError) as error:
            message = not_understood(error).detail
            reply_as(problem(403, message, error="malformed_request", message=message))
        except InputError as error:  # the gateway's own credential is missing or wrong
            reply_as(error.answer())

    def _authorize(self, check: CheckRequest, reply: Reply) -> None:
        request_id = self._next_id()

        def decided(result: Verdict | Refusal, now_us: int) -> None:
            reply(self._renderer.authorize(result, request_id, now_us))

        self._decider.decide(check, decided)

    def _caller(self, headers: Headers) -> Caller:
        index = self._decider.index
        caller = identify(headers, self._trust, index.book.gateways.get, self._clock.now_us() / 1_000_000)
        if caller is None:
            raise InputError(401, "a valid gateway token is needed in X-Tidegate-Token")
        return caller


class _BatchInProgress:
    """Collects the decisions of a batch in their order."""

    def __init__(self, size: int, reply: Reply) -> None:
        self._bodies: list[bytes] = [b""] * size
        self._missing = size
        self._reply = reply

    def place(self, position: int, body: bytes) -> None:
        """The item's answer; the last one sends them all."""
        self._bodies[position] = body
        self._missing -= 1
        if not self._missing:
            self._reply(Answer(200, JSON_TYPE, b'{"decisions":[' + b",".join(self._bodies) + b"]}"))


def _nginx_reply(reply: Reply) -> Reply:
    """nginx's ``auth_request`` knows 2xx, 401 and 403 only: the true status and body travel in headers."""

    def as_403(answer: Answer) -> None:
        if answer.status == 200:
            reply(answer)
            return
        told = f"x-rl-status: {answer.status}\r\nx-rl-body: ".encode() + answer.body + b"\r\n"
        reply(Answer(403, answer.headers + told, answer.body))

    return as_403


def _unreadable(error: msgspec.DecodeError | UnicodeDecodeError) -> InputError:
    """What is wrong with a body: 422 that names the member, or 400 when it is not JSON at all."""
    if not isinstance(error, msgspec.ValidationError):
        return InputError(400, f"the body is not valid JSON: {error}")
    message, _, where = str(error).partition(" - at `$")
    field = where.rstrip("`").lstrip(".")
    if message.startswith("Object contains unknown field `"):
        field = ".".join(filter(None, (field, message.split("`")[1])))
    return InputError(422, message, [FieldError(field or "(body)", message)])


def _items(body: bytes) -> list[msgspec.Raw]:
    try:
        return _batch_decoder.decode(body).checks
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(error) from error


def _understood(body: bytes | msgspec.Raw, caller: Caller) -> CheckRequest:
    """One check from its JSON. Raises ``InputError`` that names the field."""
    try:
        request = _check_decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _unreadable(error) from error
    if not caller.trusted:
        _refuse_what_needs_a_gateway(request)
    if request.client is not None and request.api_key is not None:
        raise _wrong("client", "stands in for api_key: give one of them")
    if request.endpoint is not None and request.path is not None:
        raise _wrong("endpoint", "stands in for method and path: give one of them")
    if _ESCAPE in (body if type(body) is bytes else bytes(body)):  # nothing else can write a NUL into JSON
        for field in ("api_key", "client", "method", "path", "endpoint", "request_id"):
            if "\0" in (getattr(request, field) or ""):
                raise _wrong(field, "must not hold a NUL")
    if request.attributes:
        _validate_attributes(request.attributes)
    return request


def _refuse_what_needs_a_gateway(request: CheckRequest) -> None:
    """Without a token, anyone could speak for a customer and drain it."""
    for field in ("client", "endpoint", "attributes", "explain"):
        if getattr(request, field):
            raise _wrong(field, "needs a gateway token (X-Tidegate-Token)", status=403)
    if request.cost > 1:
        raise _wrong("cost", "above 1 needs a gateway token (X-Tidegate-Token)", status=403)


def _validate_attributes(attributes: dict[str, str]) -> None:
    if len(attributes) > _MAX_ATTRIBUTES:
        raise _wrong("attributes", f"at most {_MAX_ATTRIBUTES}")
    for name, value in attributes.items():
        if len(value.encode()) > MAX_ATTRIBUTE_BYTES:
            raise _wrong(f"attributes.{name[:64]}", f"at most {MAX_ATTRIBUTE_BYTES} bytes")


def _wrong(field: str, message: str, status: int = 422) -> InputError:
    return InputError(status, f"{field}: {message}", [FieldError(field, message)])
