"""What follows from a write, derived in one function that is read from top to bottom."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from control_plane.clients import writes
from control_plane.enforcement.service import EnforcementOverrides
from control_plane.limits.models import SPLIT_MODES
from control_plane.limits.service import OutsideLimits, Plans, changed_but_limit, publish_plan, rules_in, to_rule
from control_plane.publishing.repository import ChangedDocument, DocumentKey
from control_plane.publishing.writer import ConfigWrite
from control_plane.quotas.scheduling import schedule_shares
from control_plane.regions import repository as regions
from control_plane.schedule import now_us
from tidegate.contract.limits import LimitRule
from tidegate.contract.usage import OUTSIDE_PLANS

Rules = dict[str, LimitRule]
_overrides = EnforcementOverrides()


async def derive(write: ConfigWrite) -> None:
    """Publish, withdraw and record what follows from a write. Each step runs once and sees the steps before it."""
    await redistribute(write)
    if write.staged or any(map(_may_move_shares, _owners(await write.documents()))):
        await schedule_shares(write, now_us())
    await cascade(write)


async def redistribute(write: ConfigWrite) -> None:
    """Where a region comes or goes, publish every limit anew with the regions that there are now."""
    documents = await write.documents()
    if not any(one.key.kind == "region" and (one.before is None) != (one.after is None) for one in documents):
        return
    names = await regions.names(write.session)
    for plan in (await Plans.rows.find_all(write.session)).values():
        await publish_plan(write, plan)
    for row in (await OutsideLimits.rows.find_all(write.session)).values():
        write.publish(to_rule(row, names))


async def cascade(write: ConfigWrite) -> None:
    """Delete enforcement overrides of deleted limits, and clients' overrides that no longer fit."""
    owners = list(_owners(await write.documents()))
    targets = [f"{owner.name}/{limit}" for owner in owners for limit in owner.before if limit not in owner.after]
    if targets:
        for row in (await _overrides.rows.find_all(write.session, targets)).values():
            write.record(_overrides.noun, row.target, _overrides.view(row), None)
            await _overrides.remove(write, row)
    for owner in owners:
        changed = changed_but_limit(owner.before, owner.after)
        if changed and owner.name != OUTSIDE_PLANS:
            await writes.drop_overrides(write, owner.name, owner.after, changed)


class _Owner(NamedTuple):
    """A plan, or ``_`` for limits outside plans, with its limits before and after a write."""

    name: str
    before: Rules
    after: Rules


def _owners(changes: Iterable[ChangedDocument]) -> Iterator[_Owner]:
    for change in changes:
        if change.key.kind in {"plan", "limit"}:
            name = change.key.id if change.key.kind == "plan" else OUTSIDE_PLANS
            yield _Owner(name, _by_name(change.key, change.before), _by_name(change.key, change.after))


def _by_name(key: DocumentKey, body: str | None) -> Rules:
    return {rule.name: rule for rule in rules_in(key, body).values()}


def _may_move_shares(owner: _Owner) -> bool:
    """Whether a limit has shares, or is new: a rollback brings limits back whose shares were kept."""
    known = {rule.id for rule in owner.before.values()}
    rules = (*owner.before.values(), *owner.after.values())
    return any(rule.mode in SPLIT_MODES or rule.id not in known for rule in rules)
