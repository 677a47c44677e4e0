"""The part of the configuration that is small and changes seldom: plans, limits, routes, gateways, regions."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec

from contract.config import Client, Endpoint, Gateway, Override, Plan, Region
from contract.limits import LimitRule, dimensions
from data_plane.domain.bindings import KNOWN_METHODS, BoundLimit, applies, bind, headline_of
from data_plane.domain.routes import RouteTable
from data_plane.domain.wire import encode_rule

D = TypeVar("D", bound=msgspec.Struct)
Sections = Mapping[str, Mapping[str, msgspec.Struct]]
"""Documents by kind and id."""

_MAX_BINDINGS = 65_536


class Bound:
    """The limits of a plan on a route, and what the hot path wants to know of them at once."""

    __slots__ = (
        "conditional",
        "counted_attributes",
        "form",
        "has_queue",
        "headline",
        "lasting",
        "limits",
        "makers",
        "params",
        "policies",
    )

    def __init__(self, limits: tuple[BoundLimit, ...]) -> None:
        self.limits = limits
        self.form: object = None
        """What the API keeps with it: the answer as far as it is known beforehand."""
        self.params = tuple(limit.params for limit in limits)
        self.makers = tuple(limit.key_of for limit in limits)
        self.policies = ", ".join(limit.policy for limit in limits if limit.visible)
        self.headline = headline_of(limits)
        self.lasting = tuple(at for at, limit in enumerate(limits) if limit.denials_last)
        """Positions of the limits whose denials nothing can end early."""
        self.counted_attributes = tuple(
            {
                name.partition(":")[2]
                for limit in limits
                for name in dimensions(limit.rule.scope)
                if name.startswith("attribute:")
            }
        )
        """Attributes whose values make subjects."""
        self.has_queue = any(limit.rule.algorithm == "leaky_bucket" for limit in limits)
        self.conditional = any(limit.attributes for limit in limits)

    def matching(self, attributes: Mapping[str, str]) -> "Bound":
        """Those whose wanted attributes are there."""
        return Bound(tuple(limit for limit in self.limits if applies(limit, attributes)))


class Rulebook:
    """Plans, limits outside plans, routes, gateways and regions of one revision; immutable but for its cache."""

    __slots__ = ("_bindings", "gateways", "limits", "params_by_id", "plans", "region", "regions", "routes", "sections")

    def __init__(self, region: str, sections: Sections) -> None:
        self.region = region
        self.sections = sections
        self.plans = _of(Plan, sections.get("plan", {}))
        self.limits = sorted(
            _of(LimitRule, sections.get("limit", {})).values(), key=lambda rule: (-rule.priority, rule.name)
        )
        self.routes = RouteTable(_of(Endpoint, sections.get("endpoint", {})).values())
        gateways = _of(Gateway, sections.get("gateway", {})).values()
        self.gateways = {bytes.fromhex(gateway.sha256): gateway for gateway in gateways}
        self.regions = _of(Region, sections.get("region", {}))
        self.params_by_id = {rule.id: encode_rule(rule, shared=True) for rule in self.rules() if rule.mode == "shared"}
        """Script parameters of every shared limit: what a peer's cell names."""
        self._bindings: dict[tuple[str, tuple[str, ...], str, str, bool], Bound] = {}

    def rules(self) -> Iterable[LimitRule]:
        """Every limit, in plans and outside."""
        for plan in self.plans.values():
            yield from plan.limits
        yield from self.limits

    def bound(
        self, plan_name: str, client: Client | None, endpoint: Endpoint, method: str, now_s: float, *, sites: bool
    ) -> Bound:
        """The limits that apply: the plan's in their order, then those outside plans. Cached by plan and route.

        ``sites``: the address is IPv6, so limits by address count its site as well.

        A client with overrides in force at ``now_s`` (epoch seconds) has entries of its own.
        """
        overrides = _active_overrides(client, now_s) if client is not None and client.overrides else {}
        owner = (client.client, *overrides) if client is not None and overrides else ()
        name = (plan_name, owner, endpoint.endpoint, method if method in KNOWN_METHODS else "*", sites)
        found = self._bindings.get(name)
        if found is None:
            plan = self.plans.get(plan_name)
            of_plan = [_overridden(rule, overrides) for rule in plan.limits] if plan is not None else []
            rules = [*of_plan, *self.limits]
            has_peers = len(self.regions) > 1
            found = Bound(bind(rules, endpoint, name[3], self.region, has_peers=has_peers, sites=sites))
            if len(self._bindings) >= _MAX_BINDINGS:  # clients with overrides could make many: start afresh
                self._bindings.clear()
            self._bindings[name] = found
        return found


def _of(kind: type[D], documents: Mapping[str, msgspec.Struct]) -> dict[str, D]:
    return {id: document for id, document in documents.items() if isinstance(document, kind)}


def _active_overrides(client: Client, now_s: float) -> dict[str, Override]:
    return {
        name: override
        for name, override in client.overrides.items()
        if override.expires_at is None or override.expires_at > now_s
    }


def _overridden(rule: LimitRule, overrides: Mapping[str, Override]) -> LimitRule:
    override = overrides.get(rule.name)
    if override is None:
        return rule
    # Shares are whole units of the plan's limit. Rounded down, they never sum to more than the override.
    shares = (
        {region: units * override.limit // rule.limit for region, units in rule.shares.items()} if rule.limit else {}
    )
    return msgspec.structs.replace(rule, limit=override.limit, burst=override.burst, shares=shares)
