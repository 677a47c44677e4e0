"""The limits of a plan on a route, as the hot path wants them."""

from collections.abc import Mapping
from typing import Any

from data_plane.config.counter_keys import OF_CLIENT
from data_plane.config.limit_resolution import ResolvedLimit, applies, headline_of
from data_plane.config.load_guard import Guard
from data_plane.store.packing import FIGURES, MOST_LIMITS, encode_check
from tidegate.contract.limits import dimensions

_MAX_MATCHING = 1_024


class LimitSet:
    """The limits of a plan on a route, and what the hot path wants to know of them at once."""

    __slots__ = (
        "_guard",
        "_matching",
        "client_key_rest",
        "conditional",
        "counted_attributes",
        "denial_templates",
        "endpoint",
        "gate",
        "has_queue",
        "headline",
        "key_builders",
        "key_parts",
        "lasting",
        "limits",
        "of_plan",
        "packed",
        "params",
        "plan",
        "policies",
        "rights",
        "rls_template",
        "size",
        "template",
        "unit_cost",
    )

    def __init__(
        self,
        limits: tuple[ResolvedLimit, ...],
        unit_cost: int = 1,
        *,
        plan: str = "",
        endpoint: str = "",
        of_plan: frozenset[int] = frozenset(),
        guard: Guard | None = None,
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
        self.template: Any = None
        """What the API keeps with it: the answer as far as it is known beforehand."""
        self.denial_templates: dict[Any, Any] = {}
        """The same for denials, by which limits deny."""
        self.rls_template: Any = None
        """The same as ``template`` for Envoy's rate limit protocol."""
        self.params = tuple(limit.params for limit in limits)
        self.gate = None if guard is None else guard.gate_pass(limits, self.params)
        """How its requests pass, where the route's backend is protected; made anew for what ``matching`` leaves."""
        self._guard = guard
        self.key_builders = tuple(limit.key_builder for limit in limits)
        self.policies = ", ".join(limit.policy for limit in limits if limit.visible)
        self._matching: dict[tuple[int, ...], LimitSet] = {}
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
        is_plain = len(limits) <= MOST_LIMITS and not self.conditional
        fixed = tuple((builder.owner, builder.rest) for builder in self.key_builders if not builder.varying)
        self.key_parts = fixed if is_plain and len(fixed) == len(limits) else ()
        """Owner and rest of each key, where that is all there is to them; else, and where nothing is limited, empty."""
        self.client_key_rest = fixed[0][1] if len(self.key_parts) == 1 and fixed[0][0] == OF_CLIENT else None
        """The same for the commonest case: one limit, by client."""
        self.packed = encode_check(unit_cost, self.params) if self.key_parts else b""
        """A check of cost 1, as the store takes it."""

    def matching(self, attributes: Mapping[str, str]) -> "LimitSet":
        """Those whose wanted attributes are there: the same object for the same limits."""
        places = tuple(at for at, limit in enumerate(self.limits) if applies(limit, attributes))
        found = self._matching.get(places)
        if found is None:
            limits = tuple(self.limits[at] for at in places)
            found = LimitSet(
                limits, self.unit_cost, plan=self.plan, endpoint=self.endpoint, of_plan=self.of_plan, guard=self._guard
            )
            if len(self._matching) >= _MAX_MATCHING:
                self._matching.clear()
            self._matching[places] = found
        return found


NO_LIMITS = LimitSet(())
