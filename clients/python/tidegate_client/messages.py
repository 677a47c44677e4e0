"""What is asked and answered, as the decision API writes it (`docs/decisions-api.md` in the Tidegate repository)."""

import time
from collections.abc import Mapping
from math import ceil
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

# What becomes a header is what a node writes, or no answer at all: anything else could split the end user's answer.
PolicyName = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9._-]{1,64}\Z")]
Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Status = Annotated[int, msgspec.Meta(ge=200, le=599)]
Source = Literal["node", "lease", "memory", "policy", "client"]
"""Who decided: a node, a lease held here, a denial remembered here, the fail policy because no node answered, or the
client by itself, which refuses requests that nobody can decide on.
"""


class Check(NamedTuple):
    """May this request pass? ``endpoint`` stands in for method and path, ``client`` for ``api_key``.

    Two equal checks share a lease: leave out what no limit looks at (an address, a raw path) where you can.
    """

    api_key: str | None = None
    client: str | None = None
    ip: str | None = None
    method: str | None = None
    path: str | None = None
    endpoint: str | None = None
    attributes: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls,
        *,
        api_key: str | None = None,
        client: str | None = None,
        ip: str | None = None,
        method: str | None = None,
        path: str | None = None,
        endpoint: str | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> "Check":
        """A check from its members by name; attributes in any order."""
        pairs = tuple(sorted(attributes.items())) if attributes else ()
        return cls(api_key, client, ip, method, path, endpoint, pairs)

    def members(self) -> dict[str, object]:
        """The JSON members that are set."""
        members: dict[str, object] = {name: value for name, value in zip(self._fields, self, strict=True) if value}
        if self.attributes:
            members["attributes"] = dict(self.attributes)
        return members


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answer to a check. Times are seconds from when it was made; the limit members are ``None`` without a limit.

    ``status`` is what an HTTP answer to the end user should have: 200, 429, or 401 and 403 when the key was refused.
    """

    allowed: bool
    status: int = 200
    client: str | None = None
    plan: str | None = None
    policy: str | None = None
    limit: int | None = None
    window_s: float | None = None
    remaining: int | None = None
    reset_after_s: float | None = None
    retry_after_s: float | None = None
    delay_ms: float = 0
    degraded: bool = False
    error: str | None = None
    cause: str | None = None
    """Why it was denied, out of the closed set in ``docs/decisions-api.md``."""
    message: str | None = None
    request_id: str | None = None
    source: Source = "node"

    def headers(self, now_s: float | None = None) -> dict[str, str]:
        """The rate limit headers for an answer to the end user; times are rounded up.

        ``now_s`` is the time of day in seconds since 1970, for ``X-RateLimit-Reset``; left out, it is asked for.
        """
        lines: dict[str, str] = {}
        if self.limit is not None and self.policy is not None:
            window = f";w={int(self.window_s)}" if self.window_s and self.window_s == int(self.window_s) else ""
            wait_s = self.reset_after_s if self.allowed else self.retry_after_s
            after = "" if wait_s is None else f";t={ceil(wait_s)}"
            lines["RateLimit-Policy"] = f'"{self.policy}";q={self.limit}{window}'
            if self.remaining is not None:
                lines["RateLimit"] = f'"{self.policy}";r={self.remaining}{after}'
                lines["X-RateLimit-Limit"] = str(self.limit)
                lines["X-RateLimit-Remaining"] = str(self.remaining)
                reset_s = wait_s if wait_s is not None else self.reset_after_s or 0.0
                lines["X-RateLimit-Reset"] = str(ceil((time.time() if now_s is None else now_s) + reset_s))
        if not self.allowed:
            lines["Cache-Control"] = "no-store"
            if self.status == 401:
                lines["WWW-Authenticate"] = "ApiKey"
            if self.retry_after_s is not None:
                lines["Retry-After"] = str(ceil(self.retry_after_s))
        return lines

    def problem(self) -> dict[str, object]:
        """A denial as RFC 9457 members, for an answer to the end user."""
        message = self.message or ("Too many requests." if self.status == 429 else "Not allowed.")
        is_shed = self.status == 429 and self.cause == "reduced_capacity"
        titles = {401: "Unauthorized", 403: "Forbidden", 429: "Too Many Requests"}
        members: dict[str, object] = {
            "title": "Temporary Reduced Capacity" if is_shed else titles.get(self.status, "Unavailable"),
            "status": self.status,
            "detail": message,
            "error": self.error or "rate_limit_exceeded",
            "message": message,
        }
        if self.cause is not None:
            members["cause"] = self.cause
        if self.request_id is not None:
            members["instance"] = self.request_id
        if self.status == 429:
            type_of_429 = "temporary-reduced-capacity" if is_shed else "quota-exceeded"
            members["type"] = f"https://iana.org/assignments/http-problem-types#{type_of_429}"
            members["retry_after"] = None if self.retry_after_s is None else ceil(self.retry_after_s)
            if self.policy is not None:
                members["violated-policies"] = [self.policy]
        return members


def refusal(status: int, error: str, message: str) -> Decision:
    """What may not pass since nobody can decide on it: no matter of the fail policy, an end user may have done it."""
    return Decision(allowed=False, status=status, error=error, message=message, source="client")


class LeaseAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``POST /v1/leases`` beyond its decision."""

    granted: Count = 0
    lease: str | None = None
    expires_in_s: Seconds = 0.0
    reason: str | None = None


class ReservationAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of ``POST /v1/reservations`` beyond its decision."""

    reserved: Count = 0
    reservation: str | None = None
    expires_in_s: Seconds = 0.0


class _FieldError(msgspec.Struct, frozen=True):
    field: str = ""


class _ItemError(msgspec.Struct, frozen=True):
    detail: str = "the check was not understood"
    status: int = 422
    errors: list[_FieldError] = []


class _Item(msgspec.Struct, frozen=True, kw_only=True):
    """One place of a batch's answer: a decision, a refusal, or what was wrong with the check."""

    allowed: bool | None = None
    status: Status | None = None
    client: str | None = None
    plan: str | None = None
    policy: PolicyName | None = None
    limit: Count | None = None
    window_s: Seconds | None = None
    remaining: Count | None = None
    reset_after_s: Seconds | None = None
    retry_after_s: Seconds | None = None
    delay_ms: float = 0
    degraded: bool = False
    error: str | _ItemError | None = None
    cause: str | None = None
    message: str | None = None
    request_id: str | None = None
    instance: str | None = None


class _Batch(msgspec.Struct, frozen=True):
    decisions: list[_Item]


UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what they should be; the last where they are nested too deeply."""
_batch_decoder = msgspec.json.Decoder(_Batch)
_item_decoder = msgspec.json.Decoder(_Item)
_lease_decoder = msgspec.json.Decoder(LeaseAnswer)
_reservation_decoder = msgspec.json.Decoder(ReservationAnswer)


class InvalidCheckError(ValueError):
    """The node did not understand a check: the caller's mistake, never a matter of policy.

    ``field`` is the member that is wrong, where the node names one.
    """

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class GarbledAnswerError(Exception):
    """What came back is no answer of a node."""


def encoded(check: Check, members: Mapping[str, object]) -> bytes:
    """A check as JSON, with ``members``. Raises ``InvalidCheckError`` for text that no JSON can hold."""
    try:
        return msgspec.json.encode({**check.members(), **members})
    except UnicodeEncodeError as error:
        raise InvalidCheckError("the check is not Unicode text") from error


def read_batch(body: bytes, size: int) -> list[Decision | InvalidCheckError]:
    """The decisions of a batch in order. Raises ``GarbledAnswerError``."""
    try:
        items = _batch_decoder.decode(body).decisions
    except UNREADABLE as error:
        raise GarbledAnswerError(str(error)) from error
    if len(items) != size:
        raise GarbledAnswerError(f"{len(items)} decisions for {size} checks")
    return [_decision(item) for item in items]


def read_decision(body: bytes) -> Decision | InvalidCheckError:
    """One decision. Raises ``GarbledAnswerError``."""
    try:
        return _decision(_item_decoder.decode(body))
    except UNREADABLE as error:
        raise GarbledAnswerError(str(error)) from error


def read_lease(body: bytes) -> LeaseAnswer:
    """What was granted. Raises ``GarbledAnswerError``."""
    try:
        return _lease_decoder.decode(body)
    except UNREADABLE as error:
        raise GarbledAnswerError(str(error)) from error


def read_reservation(body: bytes) -> ReservationAnswer:
    """What was reserved. Raises ``GarbledAnswerError``."""
    try:
        return _reservation_decoder.decode(body)
    except UNREADABLE as error:
        raise GarbledAnswerError(str(error)) from error


def _decision(item: _Item) -> Decision | InvalidCheckError:
    if isinstance(item.error, _ItemError):
        return InvalidCheckError(item.error.detail, item.error.errors[0].field if item.error.errors else None)
    if item.allowed is None:
        raise GarbledAnswerError("a decision without `allowed`")
    status = 200 if item.allowed else item.status if item.status is not None and item.status >= 400 else 429
    return Decision(
        allowed=item.allowed, status=status, client=item.client, plan=item.plan,
        policy=item.policy, limit=item.limit, window_s=item.window_s, remaining=item.remaining,
        reset_after_s=item.reset_after_s, retry_after_s=item.retry_after_s, delay_ms=item.delay_ms,
        degraded=item.degraded, error=item.error, cause=item.cause, message=item.message,
        request_id=item.request_id or item.instance,
    )  # fmt: skip
