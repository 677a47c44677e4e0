"""What must change so that the configuration is as a file says. Pure; no queries."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from control_plane.config_file.entries import Normal
from control_plane.errors import FieldError, InvalidError

FREE_DELETIONS = 10


class Difference(NamedTuple):
    """One named thing of a section, in normal form; ``None`` where it is not."""

    section: str
    name: str
    before: Normal | None
    after: Normal | None

    @property
    def action(self) -> Literal["create", "update", "delete"]:
        """What to do."""
        if self.before is None:
            return "create"
        return "update" if self.after is not None else "delete"


def differences(
    section: str, current: Mapping[str, Normal], wanted: Mapping[str, Normal], *, deletes: bool
) -> list[Difference]:
    """From ``current`` to ``wanted``; what the file leaves out goes only where ``deletes``."""
    found = [
        Difference(section, name, current.get(name), after)
        for name, after in wanted.items()
        if not _same(current.get(name), after)
    ]
    if deletes:
        found += [Difference(section, name, before, None) for name, before in current.items() if name not in wanted]
    return found


def _same(before: Normal | None, after: Normal) -> bool:
    if before is None or before != after:
        return False
    # the order of a plan's limits says which one is its headline
    return list(before.get("limits", ())) == list(after.get("limits", ()))


def keeping_auto(wanted: Normal, current: Normal | None) -> Normal:
    """A limit that the file gives no shares, and that the rebalancer splits, stays with the rebalancer."""
    if current is not None and current.get("shares") == "auto" and "shares" not in wanted:
        return {**wanted, "shares": "auto"}
    return wanted


def check_deletions(found: Iterable[Difference], allowed: int) -> None:
    """More than ten deletions must be allowed by number: a file that lost its end must not delete half a fleet."""
    count = sum(difference.action == "delete" for difference in found)
    if count > max(FREE_DELETIONS, allowed):
        message = f"this would delete {count}; more than {FREE_DELETIONS} need allow_deletes={count}"
        raise InvalidError([FieldError("allow_deletes", message)])
