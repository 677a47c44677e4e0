"""What of the configuration protects backends, made ready for the rulebook."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from data_plane.config.limit_resolution import ResolvedLimit
from data_plane.config.load_capacity import is_capacity, price_of
from data_plane.config.load_gate import Charged, GatePass
from tidegate.contract.limits import capacity
from tidegate.contract.load import AdaptivePolicy, Backend, Reporter


class Guard(NamedTuple):
    """What protects a backend from a class of its clients, by the priority of their plan."""

    backend: str
    policy: AdaptivePolicy
    priority: int

    def gate_pass(self, limits: tuple[ResolvedLimit, ...], params: tuple[bytes, ...]) -> GatePass:
        """The pass of requests under ``limits``, of which some are priced by load."""
        charged, own, most = [], [], None
        for at, limit in enumerate(limits):
            if is_capacity(limit.rule):
                held = capacity(limit.rule)
                most = held if most is None else min(most, held)
            elif not limit.rule.shadow:
                own.append(at)
            by = price_of(limit.rule, self.policy) if limit.rule.adaptive == self.policy.policy else None
            if by is not None:
                charged.append(Charged(at, by, capacity(limit.rule)))
        policy = self.policy
        return GatePass(
            self.backend, policy.policy, self.priority, policy.retry_after_s, params=params, charged=charged,
            own=own, most=most,
        )  # fmt: skip


def protected(
    backends: Mapping[str, Backend], policies: Mapping[str, AdaptivePolicy]
) -> dict[str, tuple[Backend, AdaptivePolicy]]:
    """Backends under a policy that there is, each with that policy."""
    found = ((backend, policies.get(backend.adaptive or "")) for backend in backends.values())
    return {backend.backend: (backend, policy) for backend, policy in found if policy is not None}


def reporters_by_hash(reporters: Iterable[Reporter]) -> dict[str, Reporter]:
    """Reporters by the SHA-256 (hex) of their credentials, of the one before the last rotation too."""
    found = {}
    for reporter in reporters:
        if reporter.previous_sha256 is not None:
            found[reporter.previous_sha256] = reporter
        found[reporter.sha256] = reporter
    return found
