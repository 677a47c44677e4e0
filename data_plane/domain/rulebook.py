"""The part of the configuration that is small and changes seldom: plans, limits, routes, gateways, regions."""

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import msgspec

from contract.blocks import EVERY_LIMIT, Switch
from contract.config import Client, Endpoint, Gateway, Override, Plan, Region
from contract.limits import LimitRule
from contract.load import AdaptivePolicy, Backend, Reporter
from contract.usage import OUTSIDE_PLANS
from data_plane.domain.bindings import KNOWN_METHODS, Peers, bind
from data_plane.domain.bound import NO_LIMITS, Bound
from data_plane.domain.load.capacity import capacity_rules
from data_plane.domain.load.guard import Guard, protected, reporters_by_hash
from data_plane.domain.regions.limits import for_client, overdraws
from data_plane.domain.regions.standing import Standing
from data_plane.domain.routes import NO_ENDPOINT, RouteTable

D = TypeVar("D", bound=msgspec.Struct)
Sections = Mapping[str, Mapping[str, msgspec.Struct]]
"""Documents by kind and id."""

Owner = tuple[object, ...]
"""Whose bindings: everybody's on the plan, or those of a client with the overrides and shares that it has now."""

_MAX_BINDINGS = 65_536
_MAX_WAYS = 32_768
_LONGEST_PATH = 256


def terms_of(client: Client) -> str | None:
    """What says which limits a client meets: its plan's name, or what it has of its own, as JSON.

    ``None`` where that changes with time.
    """
    if any(override.expires_at is not None for override in client.overrides.values()):
        return None
    if not client.overrides and not client.shares:
        return client.plan
    own = Client(client=client.client, plan=client.plan, overrides=client.overrides, shares=client.shares)
    return msgspec.json.encode(own).decode()


class Ways(dict[tuple[str, str | None, str], Bound]):
    """The bound of a client's terms, a method and what is asked for: what was asked before is one lookup.

    ``find`` gives the endpoint of a method and a path, or of a method and a name. Bounded: when it is full it begins
    again from nothing. ``sites`` as in ``Rulebook.bound``.
    """

    def __init__(self, book: "Rulebook", find: Callable[[str, str], Endpoint], *, sites: bool) -> None:
        super().__init__()
        self._book = book
        self._find = find
        self._sites = sites

    def __missing__(self, way: tuple[str, str | None, str]) -> Bound:
        terms, method, asked = way
        endpoint = self._find(method or "GET", asked)
        if endpoint.exempt:
            return NO_LIMITS
        # no plan's name begins like that
        client = msgspec.json.decode(terms, type=Client) if terms.startswith("{") else None
        plan = terms if client is None else client.plan
        bound = self._book.bound(plan, client, endpoint, method or endpoint.method, 0.0, sites=self._sites)
        if len(asked) <= _LONGEST_PATH:
            if len(self) >= _MAX_WAYS:
                self.clear()
            self[way] = bound
        return bound


class Rulebook:
    """Plans, limits outside plans, routes, gateways and regions of one revision; immutable but for its cache."""

    __slots__ = (
        "_bindings",
        "backends",
        "gateways",
        "limits",
        "named_ways",
        "plans",
        "priorities",
        "protected",
        "region",
        "regions",
        "reporters",
        "routes",
        "sections",
        "standing",
        "switches",
        "told_by_id",
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
        self.standing = Standing()
        self.told_by_id: dict[int, LimitRule] = {}
        """Every limit of which peers are told, as it stands: what a peer's cell names."""
        self.switches = _of(Switch, sections.get("enforcement", {}))
        """What overrides ``shadow``, by target; those whose time is over are to be taken out (``without_ended``)."""
        match, named = self.routes.match, self._named
        self.ways = (Ways(self, match, sites=False), Ways(self, match, sites=True))
        """By whether the address is IPv6."""
        self.named_ways = (Ways(self, named, sites=False), Ways(self, named, sites=True))
        """The same by the endpoint's name; of an unknown one, no limits at all."""
        self._bindings: dict[tuple[str, Owner, str, str, bool], Bound] = {}
        self.stand(self.standing)

    def stand(self, standing: Standing) -> None:
        """How this region stands to its peers from now on: what was bound otherwise is bound anew."""
        self.standing = standing
        self.told_by_id = {
            rule.id: rule for rule in self.rules() if rule.mode == "shared" or (standing.rights and overdraws(rule))
        }
        self._bindings.clear()
        for ways in (*self.ways, *self.named_ways):
            ways.clear()

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

        A client with overrides in force at ``now_s`` (epoch seconds), or with shares, has entries of its own.
        """
        overrides = _active_overrides(client, now_s) if client is not None and client.overrides else {}
        # by their figures, not by their names: a client changes, and the rulebook stays
        owner: Owner = ()
        if client is not None and (overrides or client.shares):
            owner = (client.client, *overrides.items(), msgspec.json.encode(client.shares))
        name = (plan_name, owner, endpoint.endpoint, method if method in KNOWN_METHODS else "*", sites)
        found = self._bindings.get(name)
        if found is None:
            plan = self.plans.get(plan_name)
            of_plan = _own(plan.limits, client if owner else None, overrides) if plan is not None else []
            ids = frozenset(rule.id for rule in of_plan)
            rules = [*of_plan, *self.limits]
            if self.switches:
                rules = [self._switched(rule, plan_name if rule.id in ids else OUTSIDE_PLANS) for rule in rules]
            guard = self._guard(endpoint, 0 if plan is None else plan.priority)
            if endpoint.backend in self.backends:
                backend = self.backends[endpoint.backend]
                priority = 0 if plan is None else plan.priority
                policy = None if guard is None else guard.policy
                capacities = capacity_rules(backend, policy, priority, self.region)
                rules += [self._switched(rule, OUTSIDE_PLANS) for rule in capacities] if self.switches else capacities
            peers = Peers(self.regions, self.standing)
            found = Bound(
                bind(rules, endpoint, name[3], self.region, peers, sites=sites),
                endpoint.cost,
                plan=plan_name,
                endpoint=endpoint.endpoint,
                of_plan=ids,
                guard=guard,
            )
            if len(self._bindings) >= _MAX_BINDINGS:  # clients with overrides could make many: start afresh
                self._bindings.clear()
            self._bindings[name] = found
        return found

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
        of_plan = _own(plan.limits, client, overrides) if plan is not None else []
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
        book.stand(self.standing)
        return book


def _of(kind: type[D], documents: Mapping[str, msgspec.Struct]) -> dict[str, D]:
    return {id: document for id, document in documents.items() if isinstance(document, kind)}


def _active_overrides(client: Client, now_s: float) -> dict[str, Override]:
    in_force = ((name, override.at(now_s)) for name, override in client.overrides.items())
    return {name: override for name, override in in_force if override is not None}


def _own(rules: Iterable[LimitRule], client: Client | None, overrides: Mapping[str, Override]) -> list[LimitRule]:
    """A plan's rules as the client meets them."""
    if client is None:
        return list(rules)
    return [for_client(rule, client, overrides.get(rule.name)) for rule in rules]
