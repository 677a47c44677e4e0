"""Forward-auth: reads a gateway's subrequest as a check. Only headers that the gateway itself sets are trusted.

Each gateway has a dialect, the family of headers that it sets; all others may come from the end client.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from data_plane.http.caller import REQUEST_ID_HEADER, TOKEN_HEADER, Headers
from data_plane.store.subjects import MAX_ATTRIBUTE_BYTES
from tidegate.contract.decision import MAX_COST, MAX_KEY_LENGTH, CheckRequest

DialectName = Literal["envoy", "nginx", "traefik", "caddy", "haproxy"]
PREFIX = "/v1/authorize"


class Dialect(NamedTuple):
    """The headers with the original request; ``None``: the subrequest's own method or path has it."""

    method: bytes | None
    uri: bytes | None
    address: bytes = b"x-forwarded-for"


DIALECTS: dict[str, Dialect] = {
    "envoy": Dialect(None, None),
    "nginx": Dialect(b"x-original-method", b"x-original-uri"),
    "traefik": Dialect(b"x-forwarded-method", b"x-forwarded-uri"),
    "caddy": Dialect(b"x-forwarded-method", b"x-forwarded-uri"),
    "haproxy": Dialect(b"x-forwarded-method", b"x-forwarded-uri"),
}

KeySource = Literal["x-api-key", "authorization"]
_ATTRIBUTE = b"x-tidegate-attribute-"
_BEARER = b"authorization"
_KNOWN = frozenset(
    {TOKEN_HEADER, REQUEST_ID_HEADER, b"x-api-key", _BEARER}
    | {b"x-tidegate-client", b"x-tidegate-endpoint", b"x-tidegate-cost"}
    | {name for dialect in DIALECTS.values() for name in dialect if name is not None}
)


class RefusedInputError(Exception):
    """The end client sent something malformed: a 401 or 403, because a gateway may let other errors pass."""

    def __init__(self, status: Literal[401, 403], error: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message


Fields = Mapping[bytes, Sequence[bytes]]
"""Values by lower-case header name, in the order sent."""


def known_fields(headers: Headers) -> Fields:
    """The headers that forward-auth reads, out of all that a gateway passes on."""
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        if name in _KNOWN or name.startswith(_ATTRIBUTE):
            if name in found:
                found[name].append(value)
            else:
                found[name] = [value]
    return found


def read(
    method: str, target: str, values: Fields, *,
    dialect: Dialect, by_token: bool, key_sources: tuple[bytes, ...], trusted_hops: int,
) -> CheckRequest:  # fmt: skip
    """The check that a subrequest stands for.

    ``target`` is the request target as received, ``values`` is ``known_fields``, ``key_sources`` are header names;
    ``by_token``: a gateway token came with it.

    Raises ``RefusedInputError`` for what an end client may have caused.
    """
    rest = target[len(PREFIX) :]
    if rest.startswith("?") and _deny_status(target) not in ([], ["403"]):
        raise RefusedInputError(403, "invalid_deny_status", "deny_status accepts only 403")
    path = rest if dialect.uri is None and rest.startswith("/") else _origin_form(_single(values, dialect.uri))
    original_method = method if dialect.method is None else _single(values, dialect.method)
    of_gateway = _gateway_fields(values) if by_token else _NO_FIELDS
    return CheckRequest(
        api_key=None if of_gateway.client is not None else api_key_of(values, key_sources),
        client=of_gateway.client,
        ip=_address(values.get(dialect.address, ()), trusted_hops),
        method=original_method.upper() if original_method else None,
        path=None if of_gateway.endpoint is not None else path,
        endpoint=of_gateway.endpoint,
        cost=of_gateway.cost,
        attributes=of_gateway.attributes,
    )


def denies_as_403(target: str) -> bool:
    """Whether every refusal is to be a 403 (``deny_status=403`` on ``/v1/authorize`` itself): nginx knows no other."""
    return target.startswith(PREFIX + "?") and "403" in _deny_status(target)


def _deny_status(target: str) -> list[str]:
    items = [item.partition("=") for item in target.partition("?")[2].split("&")]
    return [value for name, _, value in items if name == "deny_status"]


def _single(values: Fields, name: bytes | None) -> str | None:
    found = values.get(name, ()) if name is not None else ()
    if len(found) > 1:
        raise RefusedInputError(403, "malformed_request", "the gateway's headers came twice")
    return _text(found[0]) if found else None


def _origin_form(target: str | None) -> str | None:
    """``http://host/path`` as ``/path``: what upstreams get of it (RFC 9112, section 3.2.2)."""
    if not target or target.startswith("/"):
        return target
    scheme, separator, rest = target.partition("://")
    if not separator or not scheme.isalpha():
        return target
    path = rest[len(rest.partition("/")[0].partition("?")[0]) :]
    return path if path.startswith("/") else "/" + path


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise RefusedInputError(403, "malformed_request", "a header is not UTF-8") from None


def api_key_of(values: Fields, sources: tuple[bytes, ...]) -> str | None:
    """The API key among the headers; ``None`` where there is none. Raises ``RefusedInputError``."""
    found: list[bytes] = []
    for source in sources:
        for value in values.get(source, ()):
            # Some gateways join lines of one name by commas (RFC 9110, section 5.3): no key has one.
            for item in value.split(b",") if b"," in value else (value,):
                key = item.strip()
                if source == _BEARER:
                    scheme, _, token = key.partition(b" ")
                    key = token.strip() if scheme.lower() == b"bearer" else b""
                if key:
                    found.append(key)
    if not found:
        return None
    key = found[0]
    if len(found) > 1 and len(set(found)) > 1:
        raise RefusedInputError(401, "ambiguous_api_key", "more than one API key was sent")
    if len(key) > MAX_KEY_LENGTH:
        raise RefusedInputError(401, "malformed_api_key", "the API key is too long")
    return _text(key)


def _address(values: Sequence[bytes], trusted_hops: int) -> str | None:
    """The address that the outermost trusted hop saw: counted from the right, where clients cannot write."""
    chain = values if len(values) == 1 and b"," not in values[0] else b",".join(values).split(b",")
    seen = chain[-trusted_hops].strip() if len(chain) >= trusted_hops else b""
    if not seen:
        return None
    address = _text(seen)
    if address.startswith("["):  # [2001:db8::1]:1234
        return address[1:].partition("]")[0]
    return address.partition(":")[0] if address.count(":") == 1 else address


class _GatewayFields(NamedTuple):
    """What a gateway that authenticates its clients itself adds to the request."""

    client: str | None
    endpoint: str | None
    cost: int
    attributes: dict[str, str]


_NO_FIELDS = _GatewayFields(None, None, 1, {})


def _gateway_fields(values: Fields) -> _GatewayFields:
    cost = _single(values, b"x-tidegate-cost")
    attributes = {
        name[len(_ATTRIBUTE) :].decode(): _single(values, name) or "" for name in values if name.startswith(_ATTRIBUTE)
    }
    if any(len(value.encode()) > MAX_ATTRIBUTE_BYTES for value in attributes.values()):
        raise RefusedInputError(403, "malformed_request", f"an attribute is over {MAX_ATTRIBUTE_BYTES} bytes")
    return _GatewayFields(
        client=_single(values, b"x-tidegate-client"),
        endpoint=_single(values, b"x-tidegate-endpoint"),
        cost=1 if cost is None else _cost(cost),
        attributes=attributes,
    )


def _cost(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 13 and int(value) <= MAX_COST):
        raise RefusedInputError(
            403, "malformed_request", f"X-Tidegate-Cost must be a whole number, at most {MAX_COST:,}"
        )
    return int(value)
