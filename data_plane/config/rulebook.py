"""The small part of the configuration, which changes seldom: plans, limits, routes, gateways, regions."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import msgspec

from data_plane.config.limit_resolution import KNOWN_METHODS, RegionFacts, ResolvedLimit, can_apply
from data_plane.config.limit_set import NO_LIMITS, LimitSet
from data_plane.config.load_guard import Guard, capacity_rules, protected, reporters_by_hash
from data_plane.config.routes import NO_ENDPOINT, RouteTable
from data_plane.config.strict_limits import for_client
from data_plane.store.subjects import ordered_dimensions
from tidegate.contract.blocks import EVERY_LIMIT, EnforcementOverride
from tidegate.contract.config import Client, Endpoint, Gateway, Override, Plan, Region
from tidegate.contract.limits import LimitRule
from tidegate.contract.load import AdaptivePolicy, Backend, Reporter
from tidegate.contract.usage import OUTSIDE_PLANS

D = TypeVar("D", bound=msgspec.Struct)
K = TypeVar("K")
Sections = Mapping[str, Mapping[str, msgspec.Struct]]
"""Documents by kind and id."""

CacheKey = tuple[str, str, str, bool]
"""Limit-set key, endpoint, method, and whether the address is IPv6."""

_MAX_SHARED_SETS = 65_536
_MAX_LOOKUPS = 32_768
_MAX_OWN_SETS = 16_384
"""Clients with limits of their own have a cache apart, so that thousands of them push out no plan's sets."""
_LONGEST_LOOKUP = 256


class BoundedCache(OrderedDict[K, LimitSet]):
    """The newest limit sets. The oldest leave one at a time, as dropping all would delay decisions."""

    def __init__(self, max_size: int) -> None:
        super().__init__()
        self._max_size = max_size

    def add(self, key: K, limit_set: LimitSet) -> None:
        """Keep a limit set."""
        if len(self) >= self._max_size:
            self.popitem(last=False)
        self[key] = limit_set


def limit_set_key_of(client: Client) -> str | None:
    """The limit-set key of a client: its plan's name, or its own limits as JSON. Equal keys mean equal limits.

    ``None`` if its limits change with time.
    """
    if any(override.expires_at is not None for override in client.overrides.values()):
        return None
    return _limit_set_key(client.plan, client.overrides)


def _limit_set_key(plan: str, overrides: Mapping[str, Override]) -> str:
    """The key by figures instead of the client's name, as clients change while the rulebook stays."""
    if not overrides:
        return plan
    return msgspec.json.encode(Client(client="", plan=plan, overrides=dict(overrides))).decode()


class ResolutionCache(dict[tuple[str, str | None, str], LimitSet]):
    """Limit sets by limit-set key, method, and path or endpoint name: a request seen before is one lookup.

    ``find`` returns the endpoint of a method and a path, or of a method and a name. ``sites`` is as in
    ``Rulebook.limit_set``. A full cache is cleared. Clients with limits of their own have a cache apart.
    """

    def __init__(self, book: "Rulebook", find: Callable[[str, str], Endpoint], *, sites: bool) -> None:
        super().__init__()
        self._book = book
        self._find = find
        self._sites = sites
        self.own_sets = BoundedCache[tuple[str, str | None, str]](_MAX_OWN_SETS)

    def __missing__(self, lookup: tuple[str, str | None, str]) -> LimitSet:
        own = self.own_sets.get(lookup)
        if own is not None:
            return own
        limit_set_key, method, asked = lookup
        endpoint = self._find(method or "GET", asked)
        if endpoint.exempt:
            return NO_LIMITS
        limit_set = self._book.limit_set_by(limit_set_key, endpoint, method or endpoint.method, sites=self._sites)
        if len(method or "") + len(asked) > _LONGEST_LOOKUP:
            return limit_set
        if _is_of_client(limit_set_key):
            self.own_sets.add(lookup, limit_set)
            return limit_set
        if len(self) >= _MAX_LOOKUPS:
            self.clear()
        self[lookup] = limit_set
        return limit_set

    def forget(self) -> None:
        """Clear the cache."""
        self.clear()
        self.own_sets.clear()


class Rulebook:
    """Plans, limits outside plans, routes, gateways and regions of one revision; immutable except its caches."""

    __slots__ = (
        "_shared_sets",
        "backends",
        "by_id",
        "gateways",
        "limits",
        "named_resolutions",
        "overrides",
        "own_sets",
        "plans",
        "priorities",
        "protected",
        "region",
        "region_facts",
        "regions",
        "reporters",
        "resolutions",
        "routes",
        "sections",
        "shared_by_id",
    )

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
        self.backends = _of(Backend, sections.get("backend", {}))
        self.protected = protected(self.backends, _of(AdaptivePolicy, sections.get("adaptive_policy", {})))
        """Backends with an adaptive policy, each with that policy."""
        self.priorities = tuple(sorted({0, *(plan.priority for plan in self.plans.values())}))
        """The classes of clients: the priorities of their plans (0 for an unknown plan)."""
        self.reporters = reporters_by_hash(_of(Reporter, sections.get("reporter", {})).values())
        self.region_facts = RegionFacts()
        self.by_id = {rule.id: rule for rule in (*self.rules(), *self._capacities())}
        """Every limit, also backends' capacities, by the id that is part of its counters' keys."""
        self.shared_by_id = {id: rule for id, rule in self.by_id.items() if rule.mode == "shared"}
        """Every shared limit, by id."""
        self.overrides = _of(EnforcementOverride, sections.get("enforcement", {}))
        """Enforcement overrides by target; ``without_ended_overrides`` takes ended ones out."""
        match, named = self.routes.match, self._named
        self.resolutions = (ResolutionCache(self, match, sites=False), ResolutionCache(self, match, sites=True))
        """Resolution by path; indexed by whether the address is IPv6."""
        self.named_resolutions = (ResolutionCache(self, named, sites=False), ResolutionCache(self, named, sites=True))
        """Resolution by the endpoint's name; an unknown endpoint has no limits."""
        self._shared_sets = BoundedCache[CacheKey](_MAX_SHARED_SETS)
        self.own_sets = BoundedCache[CacheKey](_MAX_OWN_SETS)
        self.resolve_by(self.region_facts)

    def resolve_by(self, region_facts: RegionFacts) -> None:
        """Resolve limits by the region's new state: clears all caches."""
        self.region_facts = region_facts
        self._shared_sets.clear()
        self.own_sets.clear()
        for resolution in (*self.resolutions, *self.named_resolutions):
            resolution.forget()

    def rules(self) -> Iterable[LimitRule]:
        """Every limit, in plans and outside plans."""
        for plan in self.plans.values():
            yield from plan.limits
        yield from self.limits

    def limit_set(
        self, plan_name: str, client: Client | None, endpoint: Endpoint, method: str, now_s: float, *, sites: bool
    ) -> LimitSet:
        """The limits that apply: the plan's in their order, then those outside plans.

        ``sites``: the address is IPv6, so limits by address count its site as well. Overrides of the client that are in
        force at ``now_s`` (epoch seconds) apply.
        """
        overrides = _active_overrides(client, now_s) if client is not None and client.overrides else {}
        limit_set_key = _limit_set_key(plan_name, overrides)
        return self.limit_set_by(limit_set_key, endpoint, method, sites=sites)

    def limit_set_by(self, limit_set_key: str, endpoint: Endpoint, method: str, *, sites: bool) -> LimitSet:
        """The limit set of a key from ``limit_set_key_of``, on an endpoint; cached."""
        method = method.upper()
        name = (limit_set_key, endpoint.endpoint, method if method in KNOWN_METHODS else "*", sites)
        limit_sets = self.own_sets if _is_of_client(limit_set_key) else self._shared_sets
        found = limit_sets.get(name)
        if found is None:
            found = self._resolve(limit_set_key, endpoint, name[2], sites=sites)
            limit_sets.add(name, found)
        return found

    def resolved(self, rule: LimitRule, endpoint: Endpoint, *, of_site: bool = False) -> ResolvedLimit:
        """One limit as it applies on an endpoint, by the region's present state."""
        return ResolvedLimit(rule, endpoint, self.region, self.regions, self.region_facts, of_site=of_site)

    def _resolve(self, limit_set_key: str, endpoint: Endpoint, method: str, *, sites: bool) -> LimitSet:
        own = msgspec.json.decode(limit_set_key, type=Client) if _is_of_client(limit_set_key) else None
        plan_name = limit_set_key if own is None else own.plan
        plan = self.plans.get(plan_name)
        of_plan = _own(plan.limits, {} if own is None else own.overrides) if plan is not None else []
        ids = frozenset(rule.id for rule in of_plan)
        rules = [*of_plan, *self.limits]
        if self.overrides:
            rules = [self._overridden(rule, plan_name if rule.id in ids else OUTSIDE_PLANS) for rule in rules]
        priority = 0 if plan is None else plan.priority
        guard = self._guard(endpoint, priority)
        if endpoint.backend in self.backends:
            policy = None if guard is None else guard.policy
            capacities = capacity_rules(self.backends[endpoint.backend], policy, priority, self.region)
            rules += [self._overridden(rule, OUTSIDE_PLANS) for rule in capacities] if self.overrides else capacities
        wanted = [rule for rule in rules if can_apply(rule, endpoint, method)]
        limits = [self.resolved(rule, endpoint) for rule in wanted]
        if sites:
            of_address = [rule for rule in wanted if "ip" in ordered_dimensions(rule.scope)]
            limits += [self.resolved(rule, endpoint, of_site=True) for rule in of_address]
        return LimitSet(
            tuple(limits), endpoint.cost, plan=plan_name, endpoint=endpoint.endpoint, of_plan=ids, guard=guard
        )

    def _capacities(self) -> Iterable[LimitRule]:
        for backend in self.backends.values():
            _, policy = self.protected.get(backend.backend, (backend, None))
            yield from capacity_rules(backend, policy, self.priorities[0], self.region)

    def _named(self, _method: str, name: str) -> Endpoint:
        return self.routes.by_name.get(name, NO_ENDPOINT)

    def _guard(self, endpoint: Endpoint, priority: int) -> Guard | None:
        """The protection of the endpoint's backend, if there is one."""
        found = self.protected.get(endpoint.backend or "")
        every = self.overrides.get(EVERY_LIMIT)
        if found is None or (every is not None and every.mode == "shadow"):
            return None
        return Guard(found[0].backend, found[1], priority)

    def all_limits(self, client: Client, now_s: float) -> list[LimitRule]:
        """Every limit that can apply to a client on any route, with its own and the enforcement overrides."""
        plan = self.plans.get(client.plan)
        overrides = _active_overrides(client, now_s)
        of_plan = _own(plan.limits, overrides) if plan is not None else []
        return [
            *(self._overridden(rule, client.plan) for rule in of_plan),
            *(self._overridden(rule, OUTSIDE_PLANS) for rule in self.limits),
        ]

    def _overridden(self, rule: LimitRule, owner: str) -> LimitRule:
        """The rule under its enforcement override, or under that of all limits."""
        override = self.overrides.get(f"{owner}/{rule.name}") or self.overrides.get(EVERY_LIMIT)
        if override is None or (override.mode == "shadow") == rule.shadow:
            return rule
        return msgspec.structs.replace(rule, shadow=override.mode == "shadow")

    def without_ended_overrides(self, now_s: float) -> "Rulebook":
        """This rulebook without enforcement overrides that ended by ``now_s`` (epoch seconds); itself if none did."""
        ended = {
            id
            for id, override in self.overrides.items()
            if override.expires_at is not None and override.expires_at <= now_s
        }
        if not ended:
            return self
        remaining = {id: override for id, override in self.overrides.items() if id not in ended}
        book = Rulebook(self.region, {**self.sections, "enforcement": remaining})
        book.resolve_by(self.region_facts)
        return book


def _is_of_client(limit_set_key: str) -> bool:
    """Whether a limit-set key is of a client's own limits; a plan's name never begins with a brace."""
    return limit_set_key.startswith("{")


def _of(kind: type[D], documents: Mapping[str, msgspec.Struct]) -> dict[str, D]:
    return {id: document for id, document in documents.items() if isinstance(document, kind)}


def _active_overrides(client: Client, now_s: float) -> dict[str, Override]:
    in_force = ((name, override.at(now_s)) for name, override in client.overrides.items())
    return {name: override for name, override in in_force if override is not None}


def _own(rules: Iterable[LimitRule], overrides: Mapping[str, Override]) -> list[LimitRule]:
    """A plan's rules under a client's overrides."""
    return [for_client(rule, overrides.get(rule.name)) for rule in rules]
