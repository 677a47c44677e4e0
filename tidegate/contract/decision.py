"""The decision API's request and answer, as every handler of a node reads and writes them, and why one is denied."""

from typing import Annotated, Literal

import msgspec

MAX_COST = 10**12
MAX_BATCH = 1_000
MAX_STRANGERS_BATCH = 10
"""The checks of a batch from a caller without a token, where one is needed to speak for others."""
MAX_BODY_BYTES = 64 * 1024
MAX_BATCH_BODY_BYTES = 1024 * 1024

MAX_KEY_LENGTH = 256

Key = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_KEY_LENGTH)]
Cost = Annotated[int, msgspec.Meta(ge=0, le=MAX_COST)]

LimitCause = Literal["used_up", "too_few_left", "cost_above_limit", "cannot_decide", "reduced_capacity"]
"""Why a limit denied a request (429).

- ``used_up``: nothing is left; ``too_few_left``: something, but less than was asked for.
- ``cost_above_limit``: more was asked for than the limit can ever hold.
- ``cannot_decide``: nobody knows what is left: the store is away, or has not yet taken up a ``strict`` limit.
- ``reduced_capacity``: a backend's load, not the caller, is to blame.
"""
CallerCause = Literal["missing_api_key", "unknown_api_key", "client_suspended", "blocked"]
"""Why a caller was refused before any limit was asked (401, 403); the answer's ``error`` as well."""
Cause = LimitCause | CallerCause


class CheckRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """May this request pass? ``endpoint`` stands in for method and path, ``client`` for ``api_key``."""

    api_key: Key | None = None
    client: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    ip: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    method: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] | None = None
    path: Annotated[str, msgspec.Meta(min_length=1, max_length=8_192)] | None = None
    endpoint: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    cost: Cost = 1
    attributes: dict[str, str] = {}
    explain: bool = False
    request_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None


class LimitReport(msgspec.Struct, frozen=True, kw_only=True):
    """One limit's part in a decision. ``retry_after_s`` is ``None`` when allowed, or when it can never pass.

    ``remaining`` is ``None`` where nobody knows it.
    """

    policy: str
    scope: str
    limit: int
    window_s: float
    remaining: int | None
    reset_after_s: float
    retry_after_s: float | None
    allowed: bool
    shadow: bool


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a check. The limit members are ``None`` when no limit applied."""

    allowed: bool
    client: str | None
    plan: str | None
    policy: str | None
    limit: int | None
    window_s: float | None
    remaining: int | None
    reset_after_s: float | None
    retry_after_s: float | None
    delay_ms: float
    shadow_denied: tuple[str, ...]
    degraded: bool
    region: str
    revision: int
    request_id: str
    limits: tuple[LimitReport, ...] | msgspec.UnsetType = msgspec.UNSET
