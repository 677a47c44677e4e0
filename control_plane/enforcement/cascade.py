"""The cascade of changed limits: enforcement overrides and clients' overrides end with their limit."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from control_plane.clients import writes
from control_plane.enforcement import repository
from control_plane.enforcement.service import Switches
from control_plane.publishing.documents import ChangedDocument
from control_plane.publishing.writer import ConfigWrite
from tidegate.contract.config import Plan
from tidegate.contract.limits import LimitRule
from tidegate.contract.usage import OUTSIDE_PLANS

Rules = dict[str, LimitRule]
_switches = Switches()


class _Owner(NamedTuple):
    """A plan, or ``_`` for limits outside plans, with its limits before and after a write."""

    name: str
    before: Rules
    after: Rules


async def cascade(write: ConfigWrite) -> None:
    """Delete enforcement overrides of deleted limits, and clients' overrides that no longer fit."""
    owners = list(_owners(await write.documents()))
    targets = [f"{owner.name}/{limit}" for owner in owners for limit in owner.before if limit not in owner.after]
    if targets:
        for row in await repository.of_targets(write.session, targets):
            write.record(_switches.noun, row.target, _switches.view(row), None)
            await _switches.remove(write, row)
    for owner in owners:
        changed = [name for name, rule in owner.before.items() if owner.after.get(name) != rule]
        if changed and owner.name != OUTSIDE_PLANS:
            await writes.drop_overrides(write, owner.name, owner.after, changed)


def _owners(changes: Iterable[ChangedDocument]) -> Iterator[_Owner]:
    for change in changes:
        if change.key.kind == "plan":
            yield _Owner(change.key.id, _of_plan(change.before), _of_plan(change.after))
        elif change.key.kind == "limit":
            yield _Owner(OUTSIDE_PLANS, _outside(change.before), _outside(change.after))


def _of_plan(body: str | None) -> Rules:
    return {} if body is None else {rule.name: rule for rule in msgspec.json.decode(body, type=Plan).limits}


def _outside(body: str | None) -> Rules:
    rule = None if body is None else msgspec.json.decode(body, type=LimitRule)
    return {} if rule is None else {rule.name: rule}
