"""Bodies read as checks: what is wrong is said by name, and nothing is decided on what was not understood."""

from collections.abc import Sequence

import msgspec

from data_plane.http.answers import FieldError, InputError
from data_plane.http.caller import Caller
from data_plane.store.subjects import MAX_ATTRIBUTE_BYTES
from tidegate.contract.decision import (
    MAX_BATCH,
    MAX_BATCH_BODY_BYTES,
    MAX_BODY_BYTES,
    MAX_STRANGERS_BATCH,
    CheckRequest,
)
from tidegate.contract.decoding import UNREADABLE, UnreadableError, what_is_wrong

ESCAPE = b"\\"
_MAX_ATTRIBUTES = 16
BATCH_BOUNDS = {True: (MAX_BATCH_BODY_BYTES, MAX_BATCH), False: (MAX_BODY_BYTES, MAX_STRANGERS_BATCH)}
"""By whether the caller is trusted: the bytes of a batch, and its checks."""
decode_check = msgspec.json.Decoder(CheckRequest).decode


class _RawChecks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``/v1/check/batch``; items are read one by one, so that a bad one spoils no other."""

    checks: list[msgspec.Raw]


class _Checks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same, read at once: for batches of which every item is right."""

    checks: list[CheckRequest]


_batch_decoder = msgspec.json.Decoder(_RawChecks)
_checks_decoder = msgspec.json.Decoder(_Checks)


def unreadable(error: UnreadableError) -> InputError:
    """What is wrong with a body: 422 that names the member, or 400 when it is not JSON at all."""
    if not isinstance(error, msgspec.ValidationError):
        return InputError(400, f"the body is not valid JSON: {what_is_wrong(error)}")
    message, _, where = str(error).partition(" - at `$")
    field = where.rstrip("`").lstrip(".")
    if message.startswith("Object contains unknown field `"):
        field = ".".join(filter(None, (field, message.split("`")[1])))
    return InputError(422, message, [FieldError(field or "(body)", message)])


def read_checks(body: bytes, caller: Caller) -> Sequence[CheckRequest | InputError]:
    """A batch's checks, or what is wrong with one in its place. Raises ``InputError`` for the batch as a whole."""
    try:
        if ESCAPE not in body:
            checks = _checks_decoder.decode(body).checks
            return [request if _is_meant(request, caller) else _with_error(request, caller) for request in checks]
    except msgspec.ValidationError:
        pass  # one of them is wrong: see which
    except UNREADABLE as error:
        raise unreadable(error) from error
    try:
        raw = _batch_decoder.decode(body).checks
    except UNREADABLE as error:
        raise unreadable(error) from error
    return [_read_item(item, caller) for item in raw]


def _read_item(item: msgspec.Raw, caller: Caller) -> CheckRequest | InputError:
    try:
        return _understood(bytes(item), caller)
    except InputError as error:
        return error


def _with_error(request: CheckRequest, caller: Caller) -> CheckRequest | InputError:
    try:
        validate(request, caller)
    except InputError as error:
        return error
    return request


def _understood(body: bytes, caller: Caller) -> CheckRequest:
    """One check from its JSON. Raises ``InputError`` that names the field."""
    try:
        request = decode_check(body)
    except UNREADABLE as error:
        raise unreadable(error) from error
    validate(request, caller, body)
    return request


def _is_meant(request: CheckRequest, caller: Caller) -> bool:
    """Whether there is nothing in it that could be wrong, as in nearly all; else ``validate`` looks closely."""
    if request.attributes:
        return False
    if caller.trusted:
        return (request.client is None or request.api_key is None) and (
            request.endpoint is None or request.path is None
        )
    return (
        request.client is None
        and request.endpoint is None
        and request.ip is None
        and request.cost <= 1
        and not request.explain
    )


def validate(request: CheckRequest, caller: Caller, body: bytes = b"") -> None:
    """Raises ``InputError`` for what decodes but may not be asked."""
    if not caller.trusted:
        _refuse_what_needs_a_gateway(request)
    if request.client is not None and request.api_key is not None:
        raise _wrong("client", "stands in for api_key: give one of them")
    if request.endpoint is not None and request.path is not None:
        raise _wrong("endpoint", "stands in for method and path: give one of them")
    if request.attributes:
        validate_attributes(request.attributes)
    if ESCAPE in body:  # nothing else can write a NUL into JSON
        for field in ("api_key", "client", "method", "path", "endpoint", "request_id"):
            if "\0" in (getattr(request, field) or ""):
                raise _wrong(field, "must not hold a NUL")


def _refuse_what_needs_a_gateway(request: CheckRequest) -> None:
    """Without a token, anyone could speak for a customer, or from anybody's address, and drain it."""
    for field in ("client", "endpoint", "ip", "attributes", "explain"):
        if getattr(request, field):
            raise _wrong(field, "needs a gateway token (X-Tidegate-Token)", status=403)
    if request.cost > 1:
        raise _wrong("cost", "above 1 needs a gateway token (X-Tidegate-Token)", status=403)


def from_stranger(request: CheckRequest, peer: str | None) -> CheckRequest:
    """The check of a caller who has proved nothing: from the address at the other end of the connection."""
    return msgspec.structs.replace(request, ip=peer)


def too_long_a_batch(size: int, most: int) -> InputError:
    """What is wrong with a batch of ``size`` bytes where ``most`` are taken."""
    if size <= MAX_BATCH_BODY_BYTES:
        return InputError(403, f"the body is over {most} bytes: that needs a gateway token (X-Tidegate-Token)")
    return InputError(413, f"the body is over {most} bytes")


def wrong_batch_size(size: int, most: int) -> InputError:
    """What is wrong with a batch of ``size`` checks where 1 to ``most`` are taken."""
    if most < size <= MAX_BATCH:
        message = f"more than {most} need a gateway token (X-Tidegate-Token)"
        return InputError(403, f"checks: {message}", [FieldError("checks", message)])
    return InputError(422, "wrong number of checks", [FieldError("checks", f"from 1 to {most}")])


def validate_attributes(attributes: dict[str, str]) -> None:
    """Raises ``InputError`` for attributes that are too many or too long."""
    if len(attributes) > _MAX_ATTRIBUTES:
        raise _wrong("attributes", f"at most {_MAX_ATTRIBUTES}")
    for name, value in attributes.items():
        if len(value.encode()) > MAX_ATTRIBUTE_BYTES:
            raise _wrong(f"attributes.{name[:64]}", f"at most {MAX_ATTRIBUTE_BYTES} bytes")


def _wrong(field: str, message: str, status: int = 422) -> InputError:
    return InputError(status, f"{field}: {message}", [FieldError(field, message)])
