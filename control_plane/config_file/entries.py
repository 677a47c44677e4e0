"""Between the file's entries and the bodies that the API takes, both ways. Pure; no queries.

An entry in normal form is what an export writes: short, with no member that equals its default. Two entries mean the
same if, and only if, their normal forms are equal. A limit has that form from its ``LimitEntry``, by way of the
``LimitFields`` that the API takes, and from its ``LimitRecord`` in the audit log.
"""

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel

from control_plane.clients.schemas import ClientFields, ClientRecord, LastingFigures
from control_plane.config_file.amounts import format_rate, parse_rate
from control_plane.config_file.schemas import (
    BackendEntry,
    CapacityEntry,
    ClientEntry,
    EndpointEntry,
    Entry,
    LimitEntry,
    OverrideEntry,
    PlanEntry,
)
from control_plane.limits.schemas import (
    LimitCreate,
    LimitFields,
    LimitRecord,
    MatchFields,
    MatchView,
    PlanFields,
    PlanRecord,
)
from control_plane.limits.service import rule_fields, stored_seconds
from control_plane.routes.schemas import BackendFields, BackendView, CapacityFields, EndpointFields, EndpointView
from control_plane.web.fields import Body

Normal = dict[str, Any]
Shares = Mapping[str, float] | str | None


def plain(fields: type[Body], members: BaseModel, always: Collection[str] = ()) -> Normal:
    """The normal form of an entry that has the members of the API's ``fields``: those that differ from the defaults."""
    defaults = fields.model_construct().model_dump(mode="json")
    written = members.model_dump(mode="json", include=set(fields.model_fields))
    return {name: value for name, value in written.items() if name in always or value != defaults.get(name)}


def _normal(kind: type[Entry], members: Mapping[str, Any]) -> Normal:
    """``members`` of an entry of this kind, without those that equal their default."""
    fields = kind.model_fields
    return {name: value for name, value in members.items() if value is not None and value != fields[name].default}


def limit_body(entry: LimitEntry) -> LimitFields:
    """The body of a limit; its shares are written apart."""
    limit, window_s, window = entry.limit, entry.window_s, entry.window
    if isinstance(limit, str):
        rate = parse_rate(limit)
        limit, window_s, window = rate.limit, rate.window_s, "month" if rate.window_s is None else None
    alike = entry.model_dump(exclude={"by", "limit", "window_s", "window", "shares"})
    return LimitFields(scope=entry.by, limit=limit, window_s=window_s, window=window, **alike)


def _normal_limit(body: LimitFields | LimitRecord, shares: Shares) -> Normal:
    fields = rule_fields(body)
    by_default = rule_fields(LimitFields(limit=0, window_s=body.window_s, window=body.window, mode=body.mode))
    # as they are stored: to the microsecond, and where the epoch is no anchor
    window_s = None if body.window_s is None else stored_seconds(body.window_s)
    anchor = body.anchor if fields["anchor_us"] else None
    rate = None
    if anchor is None and body.window in {None, "month"}:
        rate = format_rate(body.limit, window_s)
    members = {
        "limit": rate or body.limit,
        "window_s": None if rate else window_s,
        "window": None if rate else body.window,
        "anchor": None if anchor is None else anchor.isoformat().replace("+00:00", "Z"),
        "by": body.scope,
        "algorithm": None if fields["algorithm"] == by_default["algorithm"] else fields["algorithm"],
        "burst": body.burst,
        "match": _match(body.match),
        "mode": body.mode,
        "shares": dict(sorted(shares.items())) if isinstance(shares, Mapping) else shares,
        "on_store_failure": (
            None if fields["on_store_failure"] == by_default["on_store_failure"] else fields["on_store_failure"]
        ),
        "shadow": body.shadow,
        "priority": body.priority,
        "adaptive": body.adaptive,
        "headline": body.headline,
        "visible": body.visible,
    }
    return _normal(LimitEntry, members)


def _match(match: MatchFields | MatchView) -> Normal | None:
    members = {
        "endpoints": sorted(match.endpoints),
        "methods": sorted(match.methods),
        "attributes": dict(sorted(match.attributes.items())),
    }
    return {name: value for name, value in members.items() if value} or None


def limit_of_entry(entry: LimitEntry) -> Normal:
    """The normal form of a limit in a file."""
    return _normal_limit(limit_body(entry), entry.shares)


def limit_of_record(record: LimitRecord) -> Normal:
    """The normal form of a limit as it is."""
    return _normal_limit(record, record.shares)


def plan_body(entry: PlanEntry) -> PlanFields:
    """The body of a plan."""
    limits = [LimitCreate(name=name, **limit_body(item).model_dump()) for name, item in entry.limits.items()]
    return PlanFields(priority=entry.priority, limits=limits)


def normal_plan(entry: PlanEntry) -> Normal:
    """The normal form of a plan in a file."""
    limits = {name: limit_of_entry(limit) for name, limit in entry.limits.items()}
    return _normal(PlanEntry, {"priority": entry.priority, "limits": limits})


def plan_of_record(record: PlanRecord) -> Normal:
    """The normal form of a plan as it is."""
    limits = {limit.name: limit_of_record(limit) for limit in record.limits}
    return _normal(PlanEntry, {"priority": record.priority, "limits": limits})


def backend_body(entry: BackendEntry) -> BackendFields:
    """The body of a backend."""
    return BackendFields(capacity=_capacity(entry.capacity), adaptive=entry.adaptive, pulls=entry.pulls)


def _capacity(entry: CapacityEntry | None) -> CapacityFields | None:
    if entry is None:
        return None
    if isinstance(entry.limit, int):
        return CapacityFields(limit=entry.limit, window_s=entry.window_s or 1.0, burst=entry.burst)
    rate = parse_rate(entry.limit)
    if rate.window_s is None:
        raise ValueError("a capacity is a rate by the second, minute, hour or day, not by the month")
    return CapacityFields(limit=rate.limit, window_s=rate.window_s, burst=entry.burst)


def normal_backend(backend: BackendFields | BackendView) -> Normal:
    """The normal form of a backend."""
    capacity: str | Normal | None = None
    if backend.capacity is not None:
        given = backend.capacity
        window_s = stored_seconds(given.window_s)
        rate = format_rate(given.limit, window_s)
        members = {"limit": rate or given.limit, "burst": given.burst, "window_s": window_s if rate is None else None}
        capacity = rate if rate is not None and given.burst is None else _normal(CapacityEntry, members)
    pulls = [pull.model_dump() for pull in backend.pulls]
    return _normal(BackendEntry, {"capacity": capacity, "adaptive": backend.adaptive, "pulls": pulls})


def endpoint_body(entry: EndpointEntry) -> EndpointFields:
    """The body of an endpoint."""
    method, _, path = entry.route.partition(" ")
    return EndpointFields(method=method, path=path, backend=entry.backend, cost=entry.cost, exempt=entry.exempt)


def normal_endpoint(endpoint: EndpointFields | EndpointView) -> Normal:
    """The normal form of an endpoint."""
    members = {
        "route": f"{endpoint.method} {endpoint.path}",
        "backend": endpoint.backend,
        "cost": endpoint.cost,
        "exempt": endpoint.exempt,
    }
    return _normal(EndpointEntry, members)


def client_body(entry: ClientEntry) -> ClientFields:
    """The body of a client; its overrides are written apart."""
    return ClientFields(
        plan=entry.plan, status=entry.status, attributes=entry.attributes, external_id=entry.external_id
    )


def client_of_entry(entry: ClientEntry) -> Normal:
    """The normal form of a client in a file."""
    return _normal_client(entry, entry.overrides)


def client_of_record(record: ClientRecord) -> Normal:
    """The normal form of a client as it is, without overrides that expire: those are runtime state."""
    return _normal_client(record, {name: figures.lasting for name, figures in record.overrides.items()})


def _normal_client(
    client: ClientEntry | ClientRecord, overrides: Mapping[str, OverrideEntry | LastingFigures | None]
) -> Normal:
    members = {
        "plan": client.plan,
        "status": client.status,
        "attributes": dict(sorted(client.attributes.items())),
        "external_id": client.external_id,
        "overrides": {
            name: one.limit if one.burst is None else {"limit": one.limit, "burst": one.burst}
            for name, one in sorted(overrides.items())
            if one is not None
        },
    }
    return _normal(ClientEntry, members)
