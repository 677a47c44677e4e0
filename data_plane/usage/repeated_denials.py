"""Denials that client libraries repeated from memory, counted in usage and logged like denials of this node."""

from collections.abc import Callable, Sequence

from data_plane.config.index import RuleIndex
from data_plane.decide.check_resolution import Anonymous, UnknownNameError, resolve
from data_plane.decide.denial_log import DenialLog
from data_plane.decide.pending_check import ResolvedCheck
from data_plane.store.ports import Clock
from data_plane.store.subject_bounds import SubjectBounds
from data_plane.store.subjects import InvalidAddressError
from data_plane.usage.tally import UsageTally
from tidegate.contract.decision import CheckRequest
from tidegate.contract.denials import RepeatedDenial


class RepeatedDenials:
    """Takes reports of trusted callers; no counter changes."""

    def __init__(
        self, index: Callable[[], RuleIndex], revision: Callable[[], int], anonymous: Anonymous, bounds: SubjectBounds,
        clock: Clock, usage: UsageTally, log: DenialLog,
    ) -> None:  # fmt: skip
        self._index = index
        self._revision = revision
        self._anonymous = anonymous
        self._bounds = bounds
        self._clock = clock
        self._usage = usage
        self._log = log

    def take(self, denials: Sequence[RepeatedDenial]) -> int:
        """Count and log denials. Returns how many of them the current configuration still knows."""
        now_us = self._clock.now_us()
        taken = 0
        for denial in denials:
            check = self._resolved(denial, now_us / 1_000_000)
            if check is None or not check.cost:
                continue
            taken += 1
            limits = check.limit_set.limits
            denied = tuple(place for place, limit in enumerate(limits) if limit.rule.name == denial.policy)
            self._usage.repeated(check, denied, denial.requests)
            self._log.repeated(check, denial, self._revision(), now_us)
        return taken

    def _resolved(self, denial: RepeatedDenial, now_s: float) -> ResolvedCheck | None:
        request = CheckRequest(
            api_key=denial.api_key, client=denial.client, ip=denial.ip, method=denial.method, path=denial.path,
            endpoint=denial.endpoint, attributes=denial.attributes, cost=denial.cost,
        )  # fmt: skip
        check = ResolvedCheck(request)
        try:
            refusal = resolve(check, self._index(), self._anonymous, self._bounds, now_s)
        except (UnknownNameError, InvalidAddressError):
            return None
        return check if refusal is None else None
