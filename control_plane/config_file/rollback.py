"""Back to a revision: what was changed since is written again as it was, as a new revision.

It goes through the same writing as a file, so tables, documents and the audit log agree. What is not rolled back: keys,
tokens and credentials (what was revoked stays revoked), generations (a reset never comes undone), and runtime state.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.clients import repository as client_rows
from control_plane.clients import writes
from control_plane.clients.schemas import ClientRecord
from control_plane.config_file import entries, repository, sections, writing
from control_plane.config_file.differences import Difference, check_deletions, differences
from control_plane.config_file.entries import Normal
from control_plane.config_file.sections import BY_NAME, CLIENTS, SECTION_NAMES, SECTIONS, ConfigFile
from control_plane.errors import ConflictError, FieldError, InvalidError
from control_plane.limits.models import LimitRow
from control_plane.limits.service import OutsideLimits, Plans
from control_plane.publishing.writer import ConfigWrite
from control_plane.quotas.service import publish_limit

NEWEST = 2**62
Record = Mapping[str, Any]
_SECTION_OF: dict[str, str] = {section.resource.noun: section.name for section in SECTIONS}
_SECTION_OF |= {"limit": "limits", "client": CLIENTS}
"""By what the audit log calls a resource; a limit outside plans is a limit there."""


async def undo(write: ConfigWrite, number: int) -> None:
    """Take back what revision ``number`` changed, and leave what others changed since."""
    await roll_back(write, number - 1, until=number)


async def roll_back(
    write: ConfigWrite, number: int, until: int = NEWEST, *, allow_deletes: int = NEWEST
) -> list[Difference]:
    """Make the configuration what it was at revision ``number``; returns what differed.

    With ``until``, only as far as revisions up to that one changed it.
    Raises :class:`InvalidError` for more deletions than ``allow_deletes`` and ten, since a client that is deleted loses
    its keys for good; :class:`ConflictError` where the audit log no longer reaches back so far, or where what would be
    deleted is used by something that is not rolled back.
    """
    if number >= write.revision:
        raise InvalidError([FieldError("number", f"is not older than the current revision, {write.revision}")])
    forgotten = await repository.forgotten(write.session, number, until)
    if forgotten is not None:
        raise ConflictError(f"The audit log no longer says what revision {forgotten} changed.")
    wanted, gone = await _then(write.session, number, until)
    file = ConfigFile.model_validate({"version": 1, **wanted})
    changes: list[Difference] = []
    for section, current in (await _now(write.session, wanted, gone)).items():
        changes += differences(section, current, wanted.get(section, {}), deletes=False)
        changes += [Difference(section, name, current[name], None) for name in gone.get(section, ()) if name in current]
    changes.sort(key=lambda change: SECTION_NAMES.index(change.section))
    check_deletions(changes, allow_deletes)
    await writing.apply(write, file, changes)
    await _restore_rule_ids(write, number, until)
    return changes


async def _then(
    session: AsyncSession, number: int, until: int
) -> tuple[dict[str, dict[str, Normal]], dict[str, list[str]]]:
    """What was changed since, as it was: entries by section and name, and the names that there were not."""
    wanted: dict[str, dict[str, Normal]] = {}
    gone: dict[str, list[str]] = {}
    rows = await repository.first_since(session, number, until, list(_SECTION_OF))
    for resource, name, before in rows:
        section = _SECTION_OF[resource]
        if before is None:
            gone.setdefault(section, []).append(name)
        else:
            wanted.setdefault(section, {})[name] = _normal(section, before)
    return wanted, gone


def _normal(section: str, record: Record) -> Normal:
    if section == CLIENTS:
        return entries.client_of_record(ClientRecord.model_validate(record))
    return BY_NAME[section].of_record(BY_NAME[section].record.model_validate(record))


async def _now(
    session: AsyncSession, wanted: Mapping[str, Mapping[str, Normal]], gone: Mapping[str, list[str]]
) -> dict[str, dict[str, Normal]]:
    touched = {*wanted, *gone}
    found = await sections.current(session, touched)
    if CLIENTS in touched:
        names = [*wanted.get(CLIENTS, {}), *gone.get(CLIENTS, [])]
        found[CLIENTS] = {}
        for part in writes.chunks(names):
            records = await client_rows.records(session, part)
            found[CLIENTS] |= {name: entries.client_of_record(record) for name, record in records.items()}
    return found


async def _restore_rule_ids(write: ConfigWrite, number: int, until: int) -> None:
    """A limit that is again as it was goes on with what was counted for it then."""
    await write.session.flush()
    for kind, id, before in await repository.rules_then(write.session, number, until):
        if before is None:
            continue
        if kind == "plan":
            plan = await Plans.rows.find(write.session, id)
            rows, ids = plan.limits if plan else [], {rule["name"]: rule["id"] for rule in before.get("limits", [])}
        else:
            limit = await OutsideLimits.rows.find(write.session, id)
            rows, ids = [limit] if limit else [], {id: before["id"]}
        await _set_rule_ids(write, list(rows), ids)


async def _set_rule_ids(write: ConfigWrite, rows: list[LimitRow], ids: Mapping[str, int]) -> None:
    changed = [row for row in rows if row.name in ids and row.rule_id != ids[row.name]]
    for row in changed:
        row.rule_id = ids[row.name]
    if changed:
        await write.session.flush()
        for row in changed if changed[0].plan is None else changed[:1]:
            await publish_limit(write, row)
