"""The sections of the file, in the order in which they are written; deletions go the other way round."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adaptive.service import AdaptivePolicies
from control_plane.config_file import entries
from control_plane.config_file.differences import keeping_auto
from control_plane.config_file.entries import Normal
from control_plane.config_file.places import within
from control_plane.limits.rules import shares_of
from control_plane.limits.service import OutsideLimits
from control_plane.plans.service import Plans
from control_plane.publishing.writer import ConfigWrite
from control_plane.quotas import service as quotas
from control_plane.regions import repository as regions
from control_plane.regions.service import Regions
from control_plane.resources import Resource
from control_plane.routes.repository import forget_shapes
from control_plane.routes.service import Backends, Endpoints
from control_plane.web.fields import Body

Entry = Any


class Section(NamedTuple):
    """A section: its resource, and the ways between entry, body, row and normal form."""

    name: str
    resource: Resource[Any, Any, Any]
    body: Callable[[str, Entry], Body]
    normal: Callable[[str, Entry], Normal]
    of_row: Callable[[Any], Normal]
    afterwards: Callable[[ConfigWrite, str, Normal], Awaitable[None]] | None = None
    """What else to write of an entry in normal form."""
    keeping: Callable[[Normal, Normal | None], Normal] = lambda wanted, _: wanted
    """The wish, with what of the present is not the file's to say."""
    goes_first: bool = False
    """Nothing refers to its entries: those that go do so first, and leave their places to those that come."""
    before_all: Callable[[AsyncSession, list[str]], Awaitable[None]] | None = None
    """What to do before any of these names is written."""

    async def current(self, session: AsyncSession) -> dict[str, Normal]:
        """Every row in normal form, by name."""
        rows = await self.resource.rows.all(session)
        return {self.resource.name_of(row): self.of_row(row) for row in rows}


def _keeping_auto_in_plan(wanted: Normal, current: Normal | None) -> Normal:
    if current is None or "limits" not in wanted:
        return wanted
    before = current.get("limits", {})
    limits = {name: keeping_auto(limit, before.get(name)) for name, limit in wanted["limits"].items()}
    return {**wanted, "limits": limits}


async def _shares_of_plan(write: ConfigWrite, plan: str, wanted: Normal) -> None:
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


async def _shares_of_limit(write: ConfigWrite, name: str, wanted: Normal) -> None:
    await write.session.flush()
    row = await OutsideLimits().row(write.session, name)
    shares = wanted.get("shares")
    if shares != shares_of(row):
        quotas.require_regions(shares, await regions.names(write.session))
        await quotas.set_shares(write, {row: shares})


_regions, _policies, _backends = Regions(), AdaptivePolicies(), Backends()
_endpoints, _plans, _limits = Endpoints(), Plans(), OutsideLimits()

SECTIONS: tuple[Section, ...] = (
    Section(
        "regions",
        _regions,
        lambda _, entry: entries.region_body(entry),
        lambda _, entry: entries.normal_region(entry),
        lambda row: entries.normal_region(_regions.view(row)),
    ),
    Section(
        "adaptive_policies",
        _policies,
        lambda _, entry: entries.policy_body(entry),
        lambda _, entry: entries.normal_policy(entry),
        lambda row: entries.normal_policy(_policies.view(row)),
    ),
    Section(
        "backends",
        _backends,
        lambda _, entry: entries.backend_body(entry),
        lambda _, entry: entries.normal_backend(entries.backend_body(entry)),
        lambda row: entries.normal_backend(_backends.view(row)),
    ),
    Section(
        "endpoints",
        _endpoints,
        lambda _, entry: entries.endpoint_body(entry),
        lambda _, entry: entries.normal_endpoint(entries.endpoint_body(entry)),
        lambda row: entries.normal_endpoint(_endpoints.view(row)),
        before_all=forget_shapes,
    ),
    Section(
        "plans",
        _plans,
        lambda _, entry: entries.plan_body(entry),
        lambda _, entry: entries.normal_plan(entry),
        lambda row: entries.plan_of_record(_plans.audited(row)),
        _shares_of_plan,
        _keeping_auto_in_plan,
    ),
    Section(
        "limits",
        _limits,
        entries.limit_body,
        lambda name, entry: entries.normal_limit(entries.limit_body(name, entry), entry.shares),
        lambda row: entries.limit_of_record(_limits.audited(row)),
        _shares_of_limit,
        keeping_auto,
        goes_first=True,
    ),
)
"""Clients are not among them: there are so many that they are written all together."""
CLIENTS = "clients"
NAMES: tuple[str, ...] = (*(section.name for section in SECTIONS), CLIENTS)
BY_NAME: Mapping[str, Section] = {section.name: section for section in SECTIONS}
