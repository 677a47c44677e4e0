"""The careful way from a request to who asks, the limits that apply and their counters: it knows all rules. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

from data_plane.config.blocks import Blocks
from data_plane.config.counter_keys import subject_of
from data_plane.config.index import Principal, RuleIndex
from data_plane.config.limit_set import NO_LIMITS
from data_plane.config.routes import PREFLIGHT, UNMATCHED
from data_plane.decide.pending_check import PendingCheck, Refusal
from data_plane.store.subject_bounds import SubjectBounds
from data_plane.store.subjects import UNKNOWN_ADDRESS, address_of
from tidegate.contract.config import Endpoint
from tidegate.contract.decision import CheckRequest


class Anonymous(NamedTuple):
    """For each of the two cases: fall back to the anonymous plan (True) or refuse (False)."""

    missing_key: bool = True
    unknown_key: bool = True


class UnknownNameError(ValueError):
    """A trusted caller named a client or endpoint that does not exist; ``field`` says which."""

    def __init__(self, field: str, value: str) -> None:
        super().__init__(f"{field} {value[:64]!r} is not configured")
        self.field = field


def resolve(
    check: PendingCheck, index: RuleIndex, anonymous: Anonymous, bounds: SubjectBounds, now_s: float
) -> Refusal | None:
    """Fill in who asks (``principal``), what applies (``limit_set``), its counters (``keys``) and the ``cost``.

    A refusal leaves the check as it was. Raises ``UnknownNameError`` and ``InvalidAddressError`` on bad input.
    """
    request = check.request
    principal = _principal(index, request, anonymous, now_s)
    if isinstance(principal, Refusal):
        return principal
    endpoint = _endpoint(index, request)
    if index.blocks is not None:
        refusal = blocked(index.blocks, principal, endpoint.endpoint, request.ip, now_s)
        if refusal is not None:
            return refusal
    client = None if principal is None else principal.client
    coarse = bounds.coarse and client is None
    address = UNKNOWN_ADDRESS if request.ip is None else address_of(request.ip, coarse=coarse)
    check.principal = principal
    if endpoint.exempt:
        check.limit_set, check.keys, check.cost = NO_LIMITS, (), 0
        return None
    attributes: Mapping[str, str] = request.attributes
    if client is not None and client.attributes:
        attributes = {**client.attributes, **attributes}
    method, is_ipv6 = request.method or endpoint.method, address.site is not None
    limit_set = index.book.limit_set(check.plan, client, endpoint, method, now_s, sites=is_ipv6)
    if limit_set.conditional:
        limit_set = limit_set.matching(attributes)
    if limit_set.counted_attributes:
        attributes = bounds.within_budget(limit_set.counted_attributes, attributes, now_s)
    subject = subject_of(client, address, attributes)
    check.limit_set = limit_set
    check.keys = [builder.key(subject) for builder in limit_set.key_builders]
    check.cost = request.cost * endpoint.cost
    return None


def blocked(blocks: Blocks, principal: Principal | None, endpoint: str, ip: str | None, now_s: float) -> Refusal | None:
    """The refusal of a caller, an endpoint or an address that is blocked at ``now_s``, if one of them is."""
    entry = None
    if principal is not None:
        entry = blocks.of_caller(principal.client.client, principal.key_id, now_s)
    entry = entry or blocks.of_endpoint(endpoint, now_s)
    if entry is None and ip is not None:
        entry = blocks.of_address(ip, now_s)
    return None if entry is None else Refusal("blocked_" + entry.reason_class)


def _principal(
    index: RuleIndex, request: CheckRequest, anonymous: Anonymous, now_s: float
) -> Principal | Refusal | None:
    """Whose key it is; ``None`` for the anonymous plan."""
    principal: Principal | None = None
    if request.client is not None:
        principal = index.clients.get(request.client)
        if principal is None:
            raise UnknownNameError("client", request.client)
    elif request.api_key is not None:
        principal = index.principal_of(request.api_key, int(now_s * 1_000_000))
        if principal is None and not anonymous.unknown_key:
            return Refusal.UNKNOWN_KEY
    elif not anonymous.missing_key:
        return Refusal.MISSING_KEY
    if principal is not None and principal.client.status == "suspended":
        return Refusal.SUSPENDED
    return principal


def _endpoint(index: RuleIndex, request: CheckRequest) -> Endpoint:
    if request.endpoint is not None:
        found = index.book.routes.by_name.get(request.endpoint)
        if found is None:
            raise UnknownNameError("endpoint", request.endpoint)
        return found
    if request.path is None:
        return PREFLIGHT if (request.method or "").upper() == "OPTIONS" else UNMATCHED
    return index.book.routes.match(request.method or "GET", request.path)
