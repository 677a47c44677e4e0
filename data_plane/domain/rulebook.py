"""The part of the configuration that is small and changes seldom: plans, limits, routes, gateways, regions."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from contract.blocks import EVERY_LIMIT, Switch
from contract.config import Client, Endpoint, Gateway, Override, Plan, Region
from contract.limits import LimitRule, capacity, dimensions
from contract.load import AdaptivePolicy, Backend, Reporter
from contract.usage import OUTSIDE_PLANS
from data_plane.domain.bindings import KNOWN_METHODS, OF_CLIENT, BoundLimit, Peers, applies, bind, headline_of
from data_plane.domain.load.capacity import capacity_rules, price_of
from data_plane.domain.load.gate import Charged, GatePass
from data_plane.domain.regions.limits import scaled
from data_plane.domain.regions.standing import Standing, shared_params
from data_plane.domain.routes import RouteTable
from data_plane.domain.wire import FIGURES, MOST_LIMITS, encode_check

D = TypeVar("D", bound=msgspec.Struct)
Sections = Mapping[str, Mapping[str, msgspec.Struct]]
"""Documents by kind and id."""

_MAX_BINDINGS = 65_536
_MAX_WAYS = 32_768
_MAX_MATCHING = 1_024
_LONGEST_PATH = 256


class Bound:
    """The limits of a plan on a route, and what the hot path wants to know of them at once."""

    __slots__ = (
        "_guard",
        "_matching",
        "client_ending",
        "conditional",
        "counted_attributes",
        "endings",
        "endpoint",
        "form",
        "gate",
        "has_queue",
        "headline",
        "lasting",
        "limits",
        "makers",
        "of_plan",
        "packed",
        "params",
        "plan",
        "policies",
        "rights",
        "size",
        "unit_cost",
    )

    def __init__(
        self,
        limits: tuple[BoundLimit, ...],
        unit_cost: int = 1,
        *,
        plan: str = "",
        endpoint: str = "",
        of_plan: frozenset[int] = frozenset(),
        guard: "Guard | None" = None,
    ) -> None:
        self.limits = limits
        self.plan = plan
        self.endpoint = endpoint
        self.of_plan = of_plan
        """Ids of the limits that are the plan's own; the others stand outside plans."""
        self.unit_cost = unit_cost
        """The endpoint's cost: what a request of cost 1 takes."""
        self.size = FIGURES * len(limits)
        """How many figures the store answers with."""
        self.form: Any = None
        """What the API keeps with it: the answer as far as it is known beforehand."""
        self.params = tuple(limit.params for limit in limits)
        self.gate = None if guard is None else guard.gate_pass(limits, self.params)
        """How its requests pass, where the route's backend is protected; made anew for what ``matching`` leaves."""
        self._guard = guard
        self.makers = tuple(limit.key_of for limit in limits)
        self.policies = ", ".join(limit.policy for limit in limits if limit.visible)
        self._matching: dict[tuple[int, ...], Bound] = {}
        self.headline = headline_of(limits)
        self.lasting = tuple(at for at, limit in enumerate(limits) if limit.denials_last)
        """Positions of the limits whose denials nothing can end early."""
        self.rights = tuple(at for at, limit in enumerate(limits) if limit.has_rights)
        """Positions of the limits whose outcomes say whether to ask other regions for more."""
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
        endings = tuple(limit.ending for limit in limits if limit.ending is not None)
        self.endings = endings if len(endings) == len(limits) <= MOST_LIMITS and not self.conditional else ()
        """What keys end with, where there is no more to them; else, and where nothing is limited, empty."""
        self.client_ending = endings[0].rest if len(self.endings) == 1 and endings[0].of == OF_CLIENT else None
        """The same for the commonest case: one limit, by client."""
        self.packed = encode_check(unit_cost, self.params) if self.endings else b""
        """A check of cost 1, as the store takes it."""

    def matching(self, attributes: Mapping[str, str]) -> "Bound":
        """Those whose wanted attributes are there: the same object for the same limits."""
        places = tuple(at for at, limit in enumerate(self.limits) if applies(limit, attributes))
        found = self._matching.get(places)
        if found is None:
            limits = tuple(self.limits[at] for at in places)
            found = Bound(
                limits, self.unit_cost, plan=self.plan, endpoint=self.endpoint, of_plan=self.of_plan, guard=self._guard
            )
            if len(self._matching) >= _MAX_MATCHING:
                self._matching.clear()
            self._matching[places] = found
        return found


class Guard(NamedTuple):
    """What protects a backend from a class of its clients, by the priority of their plan."""

    backend: str
    policy: AdaptivePolicy
    priority: int

    def gate_pass(self, limits: tuple[BoundLimit, ...], params: tuple[bytes, ...]) -> GatePass:
        """The pass of requests under ``limits``, of which some are priced by load."""
        charged = []
        for at, limit in enumerate(limits):
            by = price_of(limit.rule, self.policy) if limit.rule.adaptive == self.policy.policy else None
            if by is not None:
                charged.append(Charged(at, by, capacity(limit.rule)))
        policy = self.policy
        return GatePass(
            self.backend, policy.policy, self.priority, policy.retry_after_s, params=params, charged=charged
        )


class Ways(dict[tuple[str, str | None, str], Bound]):
    """The bound of a plan, a method and a path: what was asked before is one lookup.

    Bounded: when it is full it begins again from nothing. ``sites`` as in ``Rulebook.bound``.
    """

    def __init__(self, book: "Rulebook", *, sites: bool) -> None:
        super().__init__()
        self._book = book
        self._sites = sites

    def __missing__(self, way: tuple[str, str | None, str]) -> Bound:
        plan, method, path = way
        endpoint = self._book.routes.match(method or "GET", path)
        if endpoint.exempt:
            return NO_LIMITS
        bound = self._book.bound(plan, None, endpoint, method or endpoint.method, 0.0, sites=self._sites)
        if len(path) <= _LONGEST_PATH:
            if len(self) >= _MAX_WAYS:
                self.clear()
            self[way] = bound
        return bound


NO_LIMITS = Bound(())


class Rulebook:
    """Plans, limits outside plans, routes, gateways and regions of one revision; immutable but for its cache."""

    __slots__ = (
        "_bindings",
        "backends",
        "gateways",
        "limits",
        "params_by_id",
        "plans",
        "priorities",
        "protected",
        "region",
        "regions",
        "reporters",
        "routes",
        "sections",
        "shared_by_id",
        "standing",
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
        self.protected = _protected(self.backends, _of(AdaptivePolicy, sections.get("adaptive_policy", {})))
        """Backends under a policy, with that policy."""
        self.priorities = tuple(sorted({0, *(plan.priority for plan in self.plans.values())}))
        """The classes of clients: the priorities of their plans (0 for a plan that is not there)."""
        self.reporters = _by_hash(_of(Reporter, sections.get("reporter", {})).values())
        self.standing = Standing()
        self.shared_by_id = {rule.id: rule for rule in self.rules() if rule.mode == "shared"}
        """Every shared limit: what a peer's cell names."""
        self.params_by_id: dict[int, bytes] = {}
        """The script parameters of each."""
        self.switches = _of(Switch, sections.get("enforcement", {}))
        """What overrides ``shadow``, by target; those whose time is over are to be taken out (``without_ended``)."""
        self.ways = (Ways(self, sites=False), Ways(self, sites=True))
        """By whether the address is IPv6."""
        self._bindings: dict[tuple[str, tuple[str, ...], str, str, bool], Bound] = {}
        self.stand(self.standing)

    def stand(self, standing: Standing) -> None:
        """How this region stands to its peers from now on: what was bound otherwise is bound anew."""
        self.standing = standing
        self.params_by_id = {id: shared_params(rule, standing, self.regions) for id, rule in self.shared_by_id.items()}
        self._bindings.clear()
        for ways in self.ways:
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

        A client with overrides in force at ``now_s`` (epoch seconds) has entries of its own.
        """
        overrides = _active_overrides(client, now_s) if client is not None and client.overrides else {}
        owner = (client.client, *overrides) if client is not None and overrides else ()
        name = (plan_name, owner, endpoint.endpoint, method if method in KNOWN_METHODS else "*", sites)
        found = self._bindings.get(name)
        if found is None:
            plan = self.plans.get(plan_name)
            of_plan = [_overridden(rule, overrides) for rule in plan.limits] if plan is not None else []
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
        of_plan = [_overridden(rule, overrides) for rule in plan.limits] if plan is not None else []
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


def _protected(
    backends: Mapping[str, Backend], policies: Mapping[str, AdaptivePolicy]
) -> dict[str, tuple[Backend, AdaptivePolicy]]:
    found = ((backend, policies.get(backend.adaptive or "")) for backend in backends.values())
    return {backend.backend: (backend, policy) for backend, policy in found if policy is not None}


def _by_hash(reporters: Iterable[Reporter]) -> dict[str, Reporter]:
    """Reporters by the SHA-256 (hex) of their credentials, of the one before the last rotation too."""
    found = {}
    for reporter in reporters:
        if reporter.previous_sha256 is not None:
            found[reporter.previous_sha256] = reporter
        found[reporter.sha256] = reporter
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
    return scaled(rule, override.limit, override.burst)
