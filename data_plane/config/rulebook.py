"""The part of the configuration that is small and changes seldom: plans, limits, routes, gateways, regions."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import msgspec

from data_plane.config.limit_resolution import KNOWN_METHODS, Peers, bind
from data_plane.config.limit_set import NO_LIMITS, LimitSet
from data_plane.config.load_guard import Guard, capacity_rules, protected, reporters_by_hash
from data_plane.config.routes import NO_ENDPOINT, RouteTable
from data_plane.config.shared_packing import RegionFacts
from data_plane.config.strict_limits import for_client
from tidegate.contract.blocks import EVERY_LIMIT, Switch
from tidegate.contract.config import Client, Endpoint, Gateway, Override, Plan, Region
from tidegate.contract.limits import LimitRule
from tidegate.contract.load import AdaptivePolicy, Backend, Reporter
from tidegate.contract.usage import OUTSIDE_PLANS

D = TypeVar("D", bound=msgspec.Struct)
K = TypeVar("K")
Sections = Mapping[str, Mapping[str, msgspec.Struct]]
"""Documents by kind and id."""

Binding = tuple[str, str, str, bool]
"""Terms, endpoint, method, and whether the address is IPv6."""

_MAX_BINDINGS = 65_536
_MAX_WAYS = 32_768
_MAX_OWN = 16_384
"""Of clients' own: there can be thousands of clients with figures of their own, and none may push others out."""
_LONGEST_WAY = 256


class Youngest(OrderedDict[K, LimitSet]):
    """The bounds that were made last. The oldest go one at a time: to drop them all would hold up decisions."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def add(self, key: K, bound: LimitSet) -> None:
        """Keep one more."""
        if len(self) >= self._most:
            self.popitem(last=False)
        self[key] = bound


def terms_of(client: Client) -> str | None:
    """What says which limits a client meets: its plan's name, or what it has of its own, as JSON.

    ``None`` where that changes with time.
    """
    if any(override.expires_at is not None for override in client.overrides.values()):
        return None
    return _terms(client.plan, client.overrides)


def _terms(plan: str, overrides: Mapping[str, Override]) -> str:
    """The same for all who have the same: a client changes while the rulebook stays, so figures count, not names."""
    if not overrides:
        return plan
    return msgspec.json.encode(Client(client="", plan=plan, overrides=dict(overrides))).decode()


class ResolutionCache(dict[tuple[str, str | None, str], LimitSet]):
    """The bound of a client's terms, a method and what is asked for: what was asked before is one lookup.

    ``find`` gives the endpoint of a method and a path, or of a method and a name. Bounded: when it is full it begins
    again from nothing. ``sites`` as in ``Rulebook.bound``. Terms of clients' own have a table apart.
    """

    def __init__(self, book: "Rulebook", find: Callable[[str, str], Endpoint], *, sites: bool) -> None:
        super().__init__()
        self._book = book
        self._find = find
        self._sites = sites
        self._own = Youngest[tuple[str, str | None, str]](_MAX_OWN)

    def __missing__(self, way: tuple[str, str | None, str]) -> LimitSet:
        own = self._own.get(way)
        if own is not None:
            return own
        terms, method, asked = way
        endpoint = self._find(method or "GET", asked)
        if endpoint.exempt:
            return NO_LIMITS
        bound = self._book.bound_by(terms, endpoint, method or endpoint.method, sites=self._sites)
        if len(method or "") + len(asked) > _LONGEST_WAY:
            return bound
        if _is_own(terms):
            self._own.add(way, bound)
            return bound
        if len(self) >= _MAX_WAYS:
            self.clear()
        self[way] = bound
        return bound

    def forget(self) -> None:
        """Begin again from nothing."""
        self.clear()
        self._own.clear()


class Rulebook:
    """Plans, limits outside plans, routes, gateways and regions of one revision; immutable but for its cache."""

    __slots__ = (
        "_bindings",
        "_own",
        "backends",
        "by_id",
        "gateways",
        "limits",
        "named_ways",
        "plans",
        "priorities",
        "protected",
        "region",
        "region_facts",
        "regions",
        "reporters",
        "routes",
        "sections",
        "shared_by_id",
        "switches",
        "ways",
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
        """Backends under a policy, with that policy."""
        self.priorities = tuple(sorted({0, *(plan.priority for plan in self.plans.values())}))
        """The classes of clients: the priorities of their plans (0 for a plan that is not there)."""
        self.reporters = reporters_by_hash(_of(Reporter, sections.get("reporter", {})).values())
        self.region_facts = RegionFacts()
        self.by_id = {rule.id: rule for rule in self.rules()}
        """Every limit, by what its counters are named by."""
        self.shared_by_id = {id: rule for id, rule in self.by_id.items() if rule.mode == "shared"}
        """Every shared limit: what a peer's cell names."""
        self.switches = _of(Switch, sections.get("enforcement", {}))
        """What overrides ``shadow``, by target; those whose time is over are to be taken out (``without_ended``)."""
        match, named = self.routes.match, self._named
        self.ways = (ResolutionCache(self, match, sites=False), ResolutionCache(self, match, sites=True))
        """By whether the address is IPv6."""
        self.named_ways = (ResolutionCache(self, named, sites=False), ResolutionCache(self, named, sites=True))
        """The same by the endpoint's name; of an unknown one, no limits at all."""
        self._bindings = Youngest[Binding](_MAX_BINDINGS)
        self._own = Youngest[Binding](_MAX_OWN)
        self.resolve_by(self.region_facts)

    def resolve_by(self, region_facts: RegionFacts) -> None:
        """How this region stands to its peers from now on: what was bound otherwise is bound anew."""
        self.region_facts = region_facts
        self._bindings.clear()
        self._own.clear()
        for ways in (*self.ways, *self.named_ways):
            ways.forget()

    def rules(self) -> Iterable[LimitRule]:
        """Every limit, in plans and outside."""
        for plan in self.plans.values():
            yield from plan.limits
        yield from self.limits

    def bound(
        self, plan_name: str, client: Client | None, endpoint: Endpoint, method: str, now_s: float, *, sites: bool
    ) -> LimitSet:
        """The limits that apply: the plan's in their order, then those outside plans.

        ``sites``: the address is IPv6, so limits by address count its site as well.

        A client with overrides in force at ``now_s`` (epoch seconds) has terms of its own.
        """
        overrides = _active_overrides(client, now_s) if client is not None and client.overrides else {}
        terms = _terms(plan_name, overrides)
        return self.bound_by(terms, endpoint, method, sites=sites)

    def bound_by(self, terms: str, endpoint: Endpoint, method: str, *, sites: bool) -> LimitSet:
        """The same by ``terms_of`` a client. Cached, where clients have terms of their own apart from all others."""
        method = method.upper()
        name = (terms, endpoint.endpoint, method if method in KNOWN_METHODS else "*", sites)
        bindings = self._own if _is_own(terms) else self._bindings
        found = bindings.get(name)
        if found is None:
            found = self._bind(terms, endpoint, name[2], sites=sites)
            bindings.add(name, found)
        return found

    def _bind(self, terms: str, endpoint: Endpoint, method: str, *, sites: bool) -> LimitSet:
        own = msgspec.json.decode(terms, type=Client) if _is_own(terms) else None
        plan_name = terms if own is None else own.plan
        plan = self.plans.get(plan_name)
        of_plan = _own(plan.limits, {} if own is None else own.overrides) if plan is not None else []
        ids = frozenset(rule.id for rule in of_plan)
        rules = [*of_plan, *self.limits]
        if self.switches:
            rules = [self._switched(rule, plan_name if rule.id in ids else OUTSIDE_PLANS) for rule in rules]
        priority = 0 if plan is None else plan.priority
        guard = self._guard(endpoint, priority)
        if endpoint.backend in self.backends:
            policy = None if guard is None else guard.policy
            capacities = capacity_rules(self.backends[endpoint.backend], policy, priority, self.region)
            rules += [self._switched(rule, OUTSIDE_PLANS) for rule in capacities] if self.switches else capacities
        limits = bind(rules, endpoint, method, self.region, Peers(self.regions, self.region_facts), sites=sites)
        return LimitSet(limits, endpoint.cost, plan=plan_name, endpoint=endpoint.endpoint, of_plan=ids, guard=guard)

    def _named(self, _method: str, name: str) -> Endpoint:
        return self.routes.by_name.get(name, NO_ENDPOINT)

    def _guard(self, endpoint: Endpoint, priority: int) -> Guard | None:
        """What protects the endpoint's backend, if anything does."""
        found = self.protected.get(endpoint.backend or "")
        every = self.switches.get(EVERY_LIMIT)
        if found is None or (every is not None and every.mode == "shadow"):
            return None
        return Guard(found[0].backend, found[1], priority)

    def all_limits(self, client: Client, now_s: float) -> list[LimitRule]:
        """Every limit that a client can meet, on whatever route, with its overrides and the switches."""
        plan = self.plans.get(client.plan)
        overrides = _active_overrides(client, now_s)
        of_plan = _own(plan.limits, overrides) if plan is not None else []
        return [
            *(self._switched(rule, client.plan) for rule in of_plan),
            *(self._switched(rule, OUTSIDE_PLANS) for rule in self.limits),
        ]

    def _switched(self, rule: LimitRule, owner: str) -> LimitRule:
        """The rule as the switches would have it: its own, else the one of all limits."""
        switch = self.switches.get(f"{owner}/{rule.name}") or self.switches.get(EVERY_LIMIT)
        if switch is None or (switch.mode == "shadow") == rule.shadow:
            return rule
        return msgspec.structs.replace(rule, shadow=switch.mode == "shadow")

    def without_ended(self, now_s: float) -> "Rulebook":
        """Without switches whose time is over at ``now_s`` (epoch seconds): itself, where there are none."""
        ended = {
            id for id, switch in self.switches.items() if switch.expires_at is not None and switch.expires_at <= now_s
        }
        if not ended:
            return self
        left = {id: switch for id, switch in self.switches.items() if id not in ended}
        book = Rulebook(self.region, {**self.sections, "enforcement": left})
        book.resolve_by(self.region_facts)
        return book


def _is_own(terms: str) -> bool:
    """Whether these are no plan's: no plan's name begins like that."""
    return terms.startswith("{")


def _of(kind: type[D], documents: Mapping[str, msgspec.Struct]) -> dict[str, D]:
    return {id: document for id, document in documents.items() if isinstance(document, kind)}


def _active_overrides(client: Client, now_s: float) -> dict[str, Override]:
    in_force = ((name, override.at(now_s)) for name, override in client.overrides.items())
    return {name: override for name, override in in_force if override is not None}


def _own(rules: Iterable[LimitRule], overrides: Mapping[str, Override]) -> list[LimitRule]:
    """A plan's rules as a client with these overrides meets them."""
    return [for_client(rule, overrides.get(rule.name)) for rule in rules]
