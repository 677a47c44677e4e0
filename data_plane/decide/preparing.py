"""One check, understood: who asks, under which limits, and the answer once the store has spoken. Pure."""

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import msgspec

from data_plane.config.blocks import Blocks
from data_plane.config.index import Principal, RuleIndex
from data_plane.config.limit_resolution import Subject
from data_plane.config.limit_set import NO_LIMITS, LimitSet
from data_plane.config.load_gate import GatePass
from data_plane.config.routes import PREFLIGHT, UNMATCHED
from data_plane.store.outcome import NEVER, Outcome
from data_plane.store.subject_bounds import SubjectBounds
from data_plane.store.subjects import UNKNOWN_ADDRESS, address_of, generation_end
from data_plane.store.subjects import part as part_of
from tidegate.contract.config import Client, Endpoint
from tidegate.contract.decision import CheckRequest


class Refusal(Enum):
    """Why a request is turned away before any limit is looked at."""

    MISSING_KEY = "missing_api_key"
    UNKNOWN_KEY = "unknown_api_key"
    SUSPENDED = "client_suspended"
    BLOCKED_ABUSE = "blocked_abuse"
    BLOCKED_SECURITY = "blocked_security"
    BLOCKED_BILLING = "blocked_billing"
    BLOCKED_LEGAL = "blocked_legal"
    BLOCKED_OTHER = "blocked_other"


class Anonymous(NamedTuple):
    """For each of the two cases: fall back to the anonymous plan (True) or refuse (False)."""

    missing_key: bool = True
    unknown_key: bool = True


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """A check with its limits bound and its counters named, ready for the store."""

    principal: Principal | None
    plan: str
    bound: LimitSet
    keys: Sequence[bytes]
    """The counters' keys, in the order of ``bound.limits``."""
    cost: int

    @property
    def client_json(self) -> bytes:
        """The client's name as JSON."""
        return b"null" if self.principal is None else self.principal.json


class UnknownNameError(ValueError):
    """A trusted caller named a client or endpoint that does not exist; ``field`` says which."""

    def __init__(self, field: str, value: str) -> None:
        super().__init__(f"{field} {value[:64]!r} is not configured")
        self.field = field


ANONYMOUS_PLAN = "anonymous"


def prepare(
    index: RuleIndex, request: CheckRequest, anonymous: Anonymous, bounds: SubjectBounds, now_s: float
) -> Prepared | Refusal:
    """Find who asks and what applies. Raises ``UnknownNameError`` and ``InvalidAddressError`` on bad input."""
    principal = _principal(index, request, anonymous, now_s)
    if isinstance(principal, Refusal):
        return principal
    endpoint = _endpoint(index, request)
    if index.blocks is not None:
        refusal = blocked(index.blocks, principal, endpoint.endpoint, request.ip, now_s)
        if refusal is not None:
            return refusal
    coarse = bounds.coarse and principal is None
    address = UNKNOWN_ADDRESS if request.ip is None else address_of(request.ip, coarse=coarse)
    client: Client | None = None
    if principal is None:
        part = "i:" + address.subject
        subject = Subject("{" + part + "}", part, "", address.subject, address.site, request.attributes)
        plan = ANONYMOUS_PLAN
    else:
        client = principal.client
        attributes = {**client.attributes, **request.attributes} if client.attributes else request.attributes
        part = part_of("client", client.client)
        end = generation_end(client.generation)
        subject = Subject("{" + part + "}", part, end, address.subject, address.site, attributes)
        plan = client.plan
    if endpoint.exempt:
        return Prepared(principal, plan, NO_LIMITS, (), 0)
    method, is_ipv6 = request.method or endpoint.method, address.site is not None
    bound = index.book.bound(plan, client, endpoint, method, now_s, sites=is_ipv6)
    if bound.conditional:
        bound = bound.matching(subject.attributes)
    if bound.counted_attributes:
        within = bounds.within_budget(bound.counted_attributes, subject.attributes, now_s)
        subject = msgspec.structs.replace(subject, attributes=within)
    keys = [maker(subject) for maker in bound.makers]
    return Prepared(principal, plan, bound, keys, request.cost * endpoint.cost)


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


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """The answer to a prepared check. ``shown`` is the position of the limit that headers show, or ``None``."""

    prepared: Prepared
    allowed: bool
    outcomes: list[Outcome]
    shown: int | None
    violated: tuple[str, ...]
    shadow_denied: tuple[str, ...]
    degraded: bool
    by_load: bool = False
    """Denied because a backend has too much to do, not because the client has used up what is its own."""
    shed_s: int = 0
    """Where no limit was even asked: the seconds to wait."""


def conclude(prepared: Prepared, outcomes: list[Outcome], *, degraded: bool = False) -> Verdict:
    """All or nothing: allowed unless an enforced limit denies; a denial shows the limit with the longest wait."""
    limits = prepared.bound.limits
    for outcome in outcomes:
        if not outcome.allowed:
            break
    else:
        shown = prepared.bound.headline if limits else None
        return Verdict(prepared, True, outcomes, shown, (), (), degraded)
    if len(limits) == 1:
        rule = limits[0].rule
        if rule.shadow:
            return Verdict(prepared, True, outcomes, 0, (), (rule.name,), degraded)
        return Verdict(prepared, False, outcomes, 0, (rule.name,), (), degraded)
    denying = [at for at, outcome in enumerate(outcomes) if not outcome.allowed]
    enforced = [at for at in denying if not limits[at].rule.shadow]
    shadow_denied = tuple(limits[at].rule.name for at in denying if limits[at].rule.shadow)
    if not enforced:
        return Verdict(prepared, True, outcomes, prepared.bound.headline, (), shadow_denied, degraded)
    shown = max(enforced, key=lambda at: float("inf") if outcomes[at].retry_us == NEVER else outcomes[at].retry_us)
    violated = tuple(limits[at].rule.name for at in enforced)
    return Verdict(prepared, False, outcomes, shown, violated, shadow_denied, degraded)


def denied_at_a_price(verdict: Verdict, gate_pass: GatePass, cost: int) -> Verdict:
    """A denial of priced limits as the client shall see it: what is left at that price, and whether it is to blame."""
    gate, shown = gate_pass.gate, verdict.shown
    if gate is None or shown is None:
        return verdict
    by_load = gate_pass.denied_by_price(verdict.outcomes, shown, cost)
    return msgspec.structs.replace(verdict, outcomes=gate_pass.shown(gate, verdict.outcomes), by_load=by_load)
