"""Making script calls of decisions: how many fit, which share a slot, and the bytes to send."""

from typing import Protocol

from data_plane.store.ports import CounterCheck
from data_plane.store.redis.calls import Answers, Call, CallOwner
from data_plane.store.redis.link import pack_command
from data_plane.store.redis.settings import RedisSettings


class Slots(Protocol):
    """What a shard of a Cluster needs to know of the others."""

    def slot_of(self, check: CounterCheck) -> int:
        """The slot of all of this check's keys."""
        ...

    def dirty_key_of(self, checks: list[CounterCheck], slot: int | None) -> bytes:
        """What stands for the dirty set in a call with these checks, which are all in this slot."""
        ...

    def key_on(self, shard: object, name: bytes) -> bytes:
        """A key of this name that this shard holds; where it holds nothing, any."""
        ...

    def redirect(self, call: Call, code: str, message: str) -> None:
        """Take over a call that was answered with MOVED, ASK or TRYAGAIN: it did not run."""
        ...

    def want_refresh(self) -> None:
        """A server is in trouble: see whether another has its slots by now."""
        ...


class CallBuilder:
    """Packs ``EVALSHA``: KEYS[1] is the dirty set, then every counter; one argument a decision."""

    def __init__(self, settings: RedisSettings, answers: Answers, dirty_key: bytes, slots: Slots | None) -> None:
        self._max_decisions = settings.max_batch_decisions
        self._max_limits = settings.max_batch_limits
        self._answers = answers
        self._dirty_key = dirty_key
        self._slots = slots

    def fitting(self, pending: list[CounterCheck]) -> int:
        """How many of the first decisions one call may carry; at least one."""
        counts = [len(check.keys) for check in pending[: self._max_decisions]]
        taken, limits = len(counts), sum(counts)
        while limits > self._max_limits and taken > 1:
            taken -= 1
            limits -= counts[taken]
        return taken

    def build(
        self, owner: CallOwner, sha: bytes, checks: list[CounterCheck], times: list[float], slot: int | None
    ) -> list[Call]:
        """One call with these decisions. One that cannot be encoded is refused, and the others travel alone."""
        try:
            keys = [key for check in checks for key in check.keys]
            arguments = [check.packed for check in checks]
            dirty_key = self._dirty_key if self._slots is None else self._slots.dirty_key_of(checks, slot)
            packed = pack_command(b"EVALSHA", sha, len(keys) + 1, dirty_key, *keys, *arguments)
        except Exception:  # noqa: BLE001  whatever is wrong with one decision, its neighbours must not suffer
            if len(checks) == 1:
                self._answers.refuse(checks, "script_error")
                return []
            alone = zip(checks, times, strict=True)
            return [call for check, time in alone for call in self.build(owner, sha, [check], [time], slot)]
        return [Call(owner=owner, checks=checks, times=times, packed=packed, slot=slot)]


def by_slot(
    slots: Slots, checks: list[CounterCheck], times: list[float]
) -> dict[int, tuple[list[CounterCheck], list[float]]]:
    """Decisions and their times by slot: on a Cluster no script may see keys of two."""
    groups: dict[int, tuple[list[CounterCheck], list[float]]] = {}
    for check, time in zip(checks, times, strict=True):
        members, member_times = groups.setdefault(slots.slot_of(check), ([], []))
        members.append(check)
        member_times.append(time)
    return groups
