"""The sections of the file: for each one its entries, the resource that writes them, and how that is read back.

A resource that is in the file is registered here alone: as a member of ``ConfigFile``, in ``SectionName``, and as a
``Section``, which also brings the resource's routes into the API.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adaptive.endpoints import router as adaptive_router
from control_plane.adaptive.schemas import PolicyFields, PolicyView
from control_plane.adaptive.service import AdaptivePolicies
from control_plane.clients import repository as client_rows
from control_plane.clients.schemas import ClientRecord
from control_plane.config_file import entries
from control_plane.config_file.differences import keeping_auto
from control_plane.config_file.entries import Normal
from control_plane.config_file.places import within
from control_plane.config_file.schemas import (
    BackendEntry,
    ClientEntry,
    EndpointEntry,
    LimitEntry,
    PlanEntry,
    PolicyEntry,
    RegionEntry,
)
from control_plane.limits.endpoints import plans_router
from control_plane.limits.endpoints import router as limits_router
from control_plane.limits.schemas import MAX_LIMITS, LimitRecord, PlanRecord
from control_plane.limits.service import OutsideLimits, Plans, shares_of
from control_plane.publishing.writer import ConfigWrite
from control_plane.quotas import service as quotas
from control_plane.regions import repository as regions
from control_plane.regions.endpoints import router as regions_router
from control_plane.regions.schemas import RegionFields, RegionView
from control_plane.regions.service import Regions
from control_plane.resources import Resource
from control_plane.routes.endpoints import router as routes_router
from control_plane.routes.repository import forget_shapes
from control_plane.routes.schemas import BackendView, EndpointView
from control_plane.routes.service import Backends, Endpoints
from control_plane.web.fields import Body, ClientName, Name

SectionName = Literal["regions", "adaptive_policies", "backends", "endpoints", "plans", "limits", "clients"]
MAX_CLIENTS = 1_000_000
CLIENTS_A_QUERY = 5_000
_EXAMPLE: dict[str, Any] = {
    "version": 1,
    "plans": {"free": {"priority": 10, "limits": {"hourly": {"limit": "1000/h"}}}},
    "clients": {"acme": {"plan": "free", "external_id": "cus_123"}},
}


class ConfigFile(Body):
    """The configuration. A section that is absent is left alone; an empty one means that there shall be none."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    version: Literal[1]
    regions: dict[Name, RegionEntry] | None = None
    adaptive_policies: dict[Name, PolicyEntry] | None = None
    backends: dict[Name, BackendEntry] | None = None
    endpoints: dict[Name, EndpointEntry] | None = None
    plans: dict[Name, PlanEntry] | None = None
    limits: Annotated[dict[Name, LimitEntry], Field(max_length=MAX_LIMITS)] | None = None
    clients: Annotated[dict[ClientName, ClientEntry], Field(max_length=MAX_CLIENTS)] | None = None


def json_schema() -> str:
    """The JSON Schema of the file, with which editors complete and check it."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ConfigFile.model_json_schema(),
        "title": "tidegate.yaml",
    }
    return json.dumps(schema, indent=2) + "\n"


class Section(NamedTuple):
    """A section: its resource, and the ways from a file's entry and the audit log's record to the normal form."""

    name: str
    resource: Resource[Any, Any, Any]
    router: APIRouter
    body: Callable[[Any], Body]
    normal: Callable[[Any], Normal]
    record: type[BaseModel]
    """What the audit log keeps of the resource."""
    of_record: Callable[[Any], Normal]
    afterwards: Callable[[ConfigWrite, str, Normal], Awaitable[None]] | None = None
    """Writes what else an entry in normal form says."""
    keeping: Callable[[Normal, Normal | None], Normal] = lambda wanted, _: wanted
    """Adds to the wanted entry what the file leaves to the current one."""
    goes_first: bool = False
    """Whether deletions come before all writes: nothing refers to the entries, and others may take their places."""
    before_all: Callable[[AsyncSession, list[str]], Awaitable[None]] | None = None
    """Prepares the rows of these names before any of them is written."""

    async def current(self, session: AsyncSession) -> dict[str, Normal]:
        """Every row in normal form, by name."""
        rows = await self.resource.rows.find_all(session)
        return {name: self.of_record(self.resource.audited(row)) for name, row in rows.items()}


def plain(
    name: str,
    resource: Resource[Any, Any, Any],
    router: APIRouter,
    fields: type[Body],
    view: type[BaseModel],
    *,
    always: Collection[str] = (),
) -> Section:
    """A section whose entries have the members of the API's ``fields``. An export never omits those in ``always``."""

    def normal(members: BaseModel) -> Normal:
        return entries.plain(fields, members, always)

    return Section(name, resource, router, lambda entry: entry, normal, view, normal)


def _keeping_auto_in_plan(wanted: Normal, current: Normal | None) -> Normal:
    if current is None or "limits" not in wanted:
        return wanted
    before = current.get("limits", {})
    limits = {name: keeping_auto(limit, before.get(name)) for name, limit in wanted["limits"].items()}
    return {**wanted, "limits": limits}


async def _write_shares_of_plan(write: ConfigWrite, plan: str, wanted: Normal) -> None:
    await write.session.flush()
    row = await Plans().row(write.session, plan)
    names = await regions.names(write.session)
    differing = {}
    for limit in row.limits:
        shares = wanted["limits"][limit.name].get("shares")
        if shares != shares_of(limit):
            with within(f"limits.{limit.name}"):
                quotas.require_regions(shares, names)
            differing[limit] = shares
    if differing:
        await quotas.set_shares(write, differing)


async def _write_shares_of_limit(write: ConfigWrite, name: str, wanted: Normal) -> None:
    await write.session.flush()
    row = await OutsideLimits().row(write.session, name)
    shares = wanted.get("shares")
    if shares != shares_of(row):
        quotas.require_regions(shares, await regions.names(write.session))
        await quotas.set_shares(write, {row: shares})


SECTIONS: tuple[Section, ...] = (
    plain("regions", Regions(), regions_router, RegionFields, RegionView),
    plain("adaptive_policies", AdaptivePolicies(), adaptive_router, PolicyFields, PolicyView, always=["type"]),
    Section(
        "backends",
        Backends(),
        routes_router,
        body=entries.backend_body,
        normal=lambda entry: entries.normal_backend(entries.backend_body(entry)),
        record=BackendView,
        of_record=entries.normal_backend,
    ),
    Section(
        "endpoints",
        Endpoints(),
        routes_router,
        body=entries.endpoint_body,
        normal=lambda entry: entries.normal_endpoint(entries.endpoint_body(entry)),
        record=EndpointView,
        of_record=entries.normal_endpoint,
        before_all=forget_shapes,
    ),
    Section(
        "plans",
        Plans(),
        plans_router,
        body=entries.plan_body,
        normal=entries.normal_plan,
        record=PlanRecord,
        of_record=entries.plan_of_record,
        afterwards=_write_shares_of_plan,
        keeping=_keeping_auto_in_plan,
    ),
    Section(
        "limits",
        OutsideLimits(),
        limits_router,
        body=entries.limit_body,
        normal=entries.limit_of_entry,
        record=LimitRecord,
        of_record=entries.limit_of_record,
        afterwards=_write_shares_of_limit,
        keeping=keeping_auto,
        goes_first=True,
    ),
)
"""In the order in which they are written; deletions go the other way round. Clients are written in bulk, by
``writing.put_clients``."""
CLIENTS = "clients"
SECTION_NAMES: tuple[str, ...] = (*(section.name for section in SECTIONS), CLIENTS)
BY_NAME: Mapping[str, Section] = {section.name: section for section in SECTIONS}


async def current(session: AsyncSession, names: Collection[str]) -> dict[str, dict[str, Normal]]:
    """The named sections in normal form, without clients."""
    return {section.name: await section.current(session) for section in SECTIONS if section.name in names}


async def all_clients(session: AsyncSession) -> dict[str, Normal]:
    """Every client in normal form."""
    chunks = client_records(session)
    return {name: entries.client_of_record(record) async for chunk in chunks for name, record in chunk.items()}


async def client_records(session: AsyncSession) -> AsyncIterator[dict[str, ClientRecord]]:
    """Every client, in chunks ordered by name."""
    after = ""
    while True:
        names = await client_rows.names_after(session, after, CLIENTS_A_QUERY)
        if not names:
            return
        found = await client_rows.records(session, names)
        yield {name: found[name] for name in names}
        after = names[-1]
