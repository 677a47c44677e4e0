"""Reads bodies as checks. Errors name the field; a malformed check is never decided."""

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
from tidegate.contract.holds import Asker

ESCAPE = b"\\"
_MAX_ATTRIBUTES = 16
BATCH_BOUNDS = {True: (MAX_BATCH_BODY_BYTES, MAX_BATCH), False: (MAX_BODY_BYTES, MAX_STRANGERS_BATCH)}
"""Bounds of a batch, by whether the caller is trusted: bytes and checks."""
decode_check = msgspec.json.Decoder(CheckRequest).decode


class _RawChecks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``/v1/check/batch``, whose items are read one by one: a bad one spoils no other."""

    checks: list[msgspec.Raw]


class _Checks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same body, read in one call where every item is valid."""

    checks: list[CheckRequest]


_batch_decoder = msgspec.json.Decoder(_RawChecks)
_checks_decoder = msgspec.json.Decoder(_Checks)


def unreadable(error: UnreadableError, at: str = "") -> InputError:
    """The error of a body, or of what is ``at`` a place in it: 422 with the member's name, or 400 if it is not JSON."""
    if not isinstance(error, msgspec.ValidationError):
        return InputError(400, f"{at or 'the body'} is not valid JSON: {what_is_wrong(error)}")
    message, _, where = str(error).partition(" - at `$")
    field = (at + where.rstrip("`")).lstrip(".")
    if message.startswith(("Object contains unknown field `", "Object missing required field `")):
        field = ".".join(filter(None, (field, message.split("`")[1])))
    return InputError(422, message, [FieldError(field or "(body)", message)])


def read_checks(body: bytes, caller: Caller) -> Sequence[CheckRequest | InputError]:
    """A batch's checks, with an error in the place of a bad one. Raises ``InputError`` for the batch as a whole."""
    try:
        if ESCAPE not in body:
            checks = _checks_decoder.decode(body).checks
            return [
                request if _needs_no_validation(request, caller) else _with_error(request, caller) for request in checks
            ]
    except msgspec.ValidationError:
        pass  # at least one item is wrong: read them one by one
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


def _needs_no_validation(request: CheckRequest, caller: Caller) -> bool:
    """Whether the check has no member that ``validate`` would look at; nearly all have none."""
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
    """Raise ``InputError`` for a check that decodes but is not allowed."""
    if not caller.trusted:
        _refuse_what_needs_a_gateway(request)
    validate_names(request, body)


def validate_names(request: CheckRequest | Asker, body: bytes, at: str = "") -> None:
    """Raise ``InputError`` where it is said twice whose units or on which route, or in a text that is not taken.

    ``at`` is where in the body the request stands, as ``denials[0].``.
    """
    if request.client is not None and request.api_key is not None:
        raise _wrong(f"{at}client", "stands in for api_key: give one of them")
    if request.endpoint is not None and request.path is not None:
        raise _wrong(f"{at}endpoint", "stands in for method and path: give one of them")
    if request.attributes:
        _validate_attributes(request.attributes, at)
    if ESCAPE in body:  # nothing else can write a NUL into JSON
        for field in ("api_key", "client", "method", "path", "endpoint", "request_id", "policy"):
            if "\0" in (getattr(request, field, None) or ""):
                raise _wrong(f"{at}{field}", "must not hold a NUL")


def _refuse_what_needs_a_gateway(request: CheckRequest) -> None:
    """Refuse members that need a gateway token: a stranger could drain another client's or address's limit."""
    for field in ("client", "endpoint", "ip", "attributes", "explain"):
        if getattr(request, field):
            raise _wrong(field, "needs a gateway token (X-Tidegate-Token)", status=403)
    if request.cost > 1:
        raise _wrong("cost", "above 1 needs a gateway token (X-Tidegate-Token)", status=403)


def from_stranger(request: CheckRequest, peer: str | None) -> CheckRequest:
    """The check of an untrusted caller: its address is the other end of the connection."""
    return msgspec.structs.replace(request, ip=peer)


def too_long_a_batch(size: int, most: int) -> InputError:
    """The error of a batch of ``size`` bytes where ``most`` are allowed."""
    if size <= MAX_BATCH_BODY_BYTES:
        return InputError(403, f"the body is over {most} bytes: that needs a gateway token (X-Tidegate-Token)")
    return InputError(413, f"the body is over {most} bytes")


def wrong_batch_size(size: int, most: int) -> InputError:
    """The error of a batch of ``size`` checks where 1 to ``most`` are allowed."""
    if most < size <= MAX_BATCH:
        message = f"more than {most} need a gateway token (X-Tidegate-Token)"
        return InputError(403, f"checks: {message}", [FieldError("checks", message)])
    return InputError(422, "wrong number of checks", [FieldError("checks", f"from 1 to {most}")])


def _validate_attributes(attributes: dict[str, str], at: str) -> None:
    if len(attributes) > _MAX_ATTRIBUTES:
        raise _wrong(f"{at}attributes", f"at most {_MAX_ATTRIBUTES}")
    for name, value in attributes.items():
        if len(value.encode()) > MAX_ATTRIBUTE_BYTES:
            raise _wrong(f"{at}attributes.{name[:64]}", f"at most {MAX_ATTRIBUTE_BYTES} bytes")


def _wrong(field: str, message: str, status: int = 422) -> InputError:
    return InputError(status, f"{field}: {message}", [FieldError(field, message)])
