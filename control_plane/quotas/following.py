"""What follows for clients with shares of their own when a plan's limits are divided anew, count afresh or go."""

from collections.abc import Collection

import msgspec

from contract.config import Plan
from control_plane.clients.repository import clients
from control_plane.clients.service import publish
from control_plane.quotas import repository
from control_plane.rollout.documents import ChangedDocument
from control_plane.rollout.writer import ConfigWrite


async def move_clients_along(write: ConfigWrite, changes: Collection[ChangedDocument]) -> None:
    """Hold shares that are on their way back to the limit's against those that it has now."""
    changed = [id for change in changes if change.key.kind == "plan" for id in _divided_otherwise(change)]
    if not changed:
        return
    for name in await repository.clients_moved(write.session, changed):
        row = await clients.find(write.session, name)
        if row is not None:
            publish(write, row)


def _divided_otherwise(change: ChangedDocument) -> Collection[int]:
    before, after = (
        {} if body is None else {rule.id: rule for rule in msgspec.json.decode(body, type=Plan).limits}
        for body in (change.before, change.after)
    )
    return [id for id, rule in before.items() if id not in after or after[id].parts != rule.parts]
