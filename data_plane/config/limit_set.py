"""Limit sets: the limits of a plan on a route, ready for the hot path."""

from collections.abc import Mapping
from typing import Any

from data_plane.config.counter_keys import OF_CLIENT
from data_plane.config.limit_resolution import ResolvedLimit, applies, headline_of
from data_plane.config.load_guard import Guard
from data_plane.store.packing import FIGURES, MOST_LIMITS, encode_check
from tidegate.contract.limits import dimensions

_MAX_MATCHING = 1_024


class LimitSet:
    """The limits of a plan on a route, with all that the hot path derives from them."""

    __slots__ = (
        "_guard",
        "_matching",
        "client_key_rest",
        "conditional",
        "counted_attributes",
        "denial_templates",
        "endpoint",
        "gate_pass",
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
        """Ids of the plan's own limits; the others are outside plans."""
        self.unit_cost = unit_cost
        """The endpoint's cost: the units that a request of cost 1 takes."""
        self.size = FIGURES * len(limits)
        """Number of figures in the store's answer."""
        self.template: Any = None
        """The API's response template for allowed checks; the API sets it."""
        self.denial_templates: dict[Any, Any] = {}
        """The API's response templates for denials, by the limits that deny."""
        self.rls_template: Any = None
        """The response template of Envoy's rate limit protocol."""
        self.params = tuple(limit.params for limit in limits)
        self.gate_pass = None if guard is None else guard.gate_pass(limits, self.params)
        """The gate pass, if the route's backend is protected."""
        self._guard = guard
        self.key_builders = tuple(limit.key_builder for limit in limits)
        self.policies = ", ".join(limit.policy for limit in limits if limit.visible)
        self._matching: dict[tuple[int, ...], LimitSet] = {}
        self.headline = headline_of(limits)
        self.lasting = tuple(place for place, limit in enumerate(limits) if limit.denials_last)
        """Places of limits whose denials end at a known time."""
        self.rights = tuple(place for place, limit in enumerate(limits) if limit.strict is not None)
        """Places of limits whose outcomes report low rights."""
        self.counted_attributes = tuple(
            {
                name.partition(":")[2]
                for limit in limits
                for name in dimensions(limit.rule.scope)
                if name.startswith("attribute:")
            }
        )
        """Attributes that are part of counters' keys."""
        self.has_queue = any(limit.rule.algorithm == "leaky_bucket" for limit in limits)
        self.conditional = any(limit.attributes for limit in limits)
        is_plain = len(limits) <= MOST_LIMITS and not self.conditional
        fixed = tuple((builder.owner, builder.rest) for builder in self.key_builders if not builder.varying)
        self.key_parts = fixed if is_plain and len(fixed) == len(limits) else ()
        """Owner and rest of each key; empty if keys need more than that, and without limits."""
        self.client_key_rest = fixed[0][1] if len(self.key_parts) == 1 and fixed[0][0] == OF_CLIENT else None
        """The rest of the key in the commonest case: one limit, by client."""
        self.packed = encode_check(unit_cost, self.params) if self.key_parts else b""
        """A packed check of cost 1."""

    def matching(self, attributes: Mapping[str, str]) -> "LimitSet":
        """The limits that apply to these attributes; equal limits give the same object."""
        places = tuple(place for place, limit in enumerate(self.limits) if applies(limit, attributes))
        found = self._matching.get(places)
        if found is None:
            limits = tuple(self.limits[place] for place in places)
            found = LimitSet(
                limits, self.unit_cost, plan=self.plan, endpoint=self.endpoint, of_plan=self.of_plan, guard=self._guard
            )
            if len(self._matching) >= _MAX_MATCHING:
                self._matching.clear()
            self._matching[places] = found
        return found


NO_LIMITS = LimitSet(())
