"""Back to a revision: what was changed since is written again as it was, as a new revision.

It goes through the same writing as a file, so tables, documents and the audit log agree. What is not rolled back: keys,
tokens and credentials (what was revoked stays revoked), generations (a reset never comes undone), and runtime state.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.clients import repository as client_rows
from control_plane.clients import writes
from control_plane.clients.schemas import ClientFields, ClientRecord, OverrideFigures
from control_plane.clients.writes import ClientWish
from control_plane.config_file import entries, repository, sections, writing
from control_plane.config_file.differences import Difference, check_deletions, differences
from control_plane.config_file.entries import Normal
from control_plane.config_file.sections import BY_NAME, CLIENTS, SECTION_NAMES, SECTIONS, ConfigFile
from control_plane.credentials.keys.imports import put_keys
from control_plane.database import chunks
from control_plane.enforcement.models import EnforcementRow
from control_plane.enforcement.schemas import EnforcementView
from control_plane.enforcement.service import EnforcementOverrides, to_document
from control_plane.errors import ConflictError, FieldError, InvalidError
from control_plane.limits.service import rows_of
from control_plane.orm import has_ended, present
from control_plane.publishing.writer import ConfigWrite
from control_plane.quotas.service import publish_limit
from control_plane.routes import factors
from control_plane.routes.schemas import ManualFactorView
from control_plane.routes.service import MANUAL_FACTOR, Backends, manual_of
from control_plane.web.etags import Preconditions

NO_BOUND = 2**62
_backends = Backends()
_enforcement = EnforcementOverrides()
Record = Mapping[str, Any]
_SECTION_OF: dict[str, str] = {section.resource.noun: section.name for section in SECTIONS}
_SECTION_OF |= {"limit": "limits", "client": CLIENTS}
"""By what the audit log calls a resource; a limit outside plans is a limit there."""


async def undo(write: ConfigWrite, number: int) -> None:
    """Take back what revision ``number`` changed, manual factors too, with overrides that it ended before their time
    and keys that went with their clients; leave what others changed since.
    """
    await roll_back(write, number - 1, until=number)
    await write.session.flush()
    now = await present(write.session)
    lost: dict[str, dict[str, OverrideFigures]] = {}
    for resource, name, before, after in await repository.changed(
        write.session, number - 1, number, [_enforcement.noun, MANUAL_FACTOR, "client"]
    ):
        if resource == MANUAL_FACTOR:
            await _factor_again(write, name, before, now)
            continue
        if before is None:
            continue
        if resource == _enforcement.noun:
            if after is None:
                await _enforce_again(write, EnforcementView.model_validate(before), now)
            continue
        left = {} if after is None else ClientRecord.model_validate(after).overrides
        for limit, figures in ClientRecord.model_validate(before).overrides.items():
            stays = limit in left and left[limit].expires_at is not None
            if not stays and figures.expires_at is not None and figures.expires_at > now:
                lost.setdefault(name, {})[limit] = figures
    await _override_again(write, lost)
    await _keys_again(write, number, now)


async def _factor_again(write: ConfigWrite, backend: str, before: Record | None, now: datetime) -> None:
    row = await _backends.row(write.session, backend)
    was = None if before is None else ManualFactorView.model_validate(before)
    if was is not None and was.expires_at > now:
        factors.set_manual(write, row, was, Preconditions(), now)
    elif manual_of(row, now) is not None:
        factors.clear_manual(write, row, Preconditions(), now)


async def _enforce_again(write: ConfigWrite, was: EnforcementView, now: datetime) -> None:
    if has_ended(was.expires_at, now) or await _enforcement.rows.find(write.session, was.target) is not None:
        return
    row = EnforcementRow(**was.model_dump())
    write.session.add(row)
    write.publish(to_document(row))
    write.record(_enforcement.noun, row.target, None, was)


async def _override_again(write: ConfigWrite, lost: Mapping[str, Mapping[str, OverrideFigures]]) -> None:
    """Put these temporary overrides before those without an end."""
    wishes = []
    for part in chunks(list(lost), writes.AT_ONCE):
        for name, record in (await client_rows.records(write.session, part)).items():
            overrides = dict(record.overrides)
            for limit, figures in lost[name].items():
                then = overrides[limit].lasting if limit in overrides else None
                overrides[limit] = figures.model_copy(update={"then": then})
            body = ClientFields.model_validate(record.model_dump(include=set(ClientFields.model_fields)))
            wishes.append(ClientWish(name, body, {}, overrides))
    await writes.put(write, wishes)


async def _keys_again(write: ConfigWrite, number: int, now: datetime) -> None:
    """Nobody revoked them: they went with their clients, and nodes outside the stage have them all the time."""
    keys = await repository.keys_withdrawn(write.session, number)
    for part in chunks([key for key in keys if key.expires_at is None or key.expires_at > now], writes.AT_ONCE):
        await put_keys(write, part)


async def roll_back(
    write: ConfigWrite, number: int, until: int = NO_BOUND, *, allow_deletes: int = NO_BOUND
) -> list[Difference]:
    """Make the configuration what it was at revision ``number``; returns what differed.

    With ``until``, only as far as revisions up to that one changed it.
    Raises :class:`InvalidError` for more than ten deletions, or ``allow_deletes`` if more: a client loses its keys.
    Raises :class:`ConflictError` where the audit log does not reach back so far, or what would be deleted is in use.
    """
    if number >= write.revision:
        raise InvalidError([FieldError("number", f"is not older than the current revision, {write.revision}")])
    forgotten = await repository.forgotten(write.session, number, until)
    if forgotten is not None:
        raise ConflictError(f"The audit log no longer says what revision {forgotten} changed.")
    changed = await _changed(write.session, number, until)
    current = await _current(write.session, changed)
    wanted: dict[str, dict[str, Normal]] = {}
    changes: list[Difference] = []
    for section, undone in changed.items():
        now = current[section]
        wanted[section] = {name: one.before for name, one in undone.items() if one.before is not None}
        if until != NO_BOUND:
            wanted[section] = {
                name: _taken_back(now.get(name), before, undone[name].after)
                for name, before in wanted[section].items()
                if name in now or undone[name].after is None
            }
        changes += differences(section, now, wanted[section], deletes=False)
        gone = [name for name, one in undone.items() if one.before is None and name in now]
        changes += [Difference(section, name, now[name], None) for name in gone]
    file = ConfigFile.model_validate({"version": 1, **wanted})
    changes.sort(key=lambda change: SECTION_NAMES.index(change.section))
    check_deletions(changes, allow_deletes)
    await writing.apply(write, file, changes)
    changes += writing.lost_overrides(write, [change.name for change in changes if change.section == CLIENTS])
    check_deletions(changes, allow_deletes)
    await _restore_rule_ids(write, number, until)
    return changes


async def _changed(session: AsyncSession, number: int, until: int) -> dict[str, dict[str, Difference]]:
    """What the revisions that are taken back changed, by section and name."""
    found: dict[str, dict[str, Difference]] = {}
    for resource, name, before, after in await repository.changed(session, number, until, list(_SECTION_OF)):
        section = _SECTION_OF[resource]
        change = Difference(section, name, _normal(section, before), _normal(section, after))
        found.setdefault(section, {})[name] = change
    return found


def _taken_back(now: Normal | None, before: Normal, after: Normal | None) -> Normal:
    """``now``, but what a revision changed from ``before`` to ``after`` is as before."""
    if now is None or after is None or now == after:
        return before
    taken = dict(now)
    for name in {**before, **after}:
        one, other = before.get(name), after.get(name)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict) and isinstance(now.get(name), dict):
            taken[name] = _taken_back(now[name], one, other)
        elif one is None:
            taken.pop(name, None)
        else:
            taken[name] = one
    return taken


def _normal(section: str, record: Record | None) -> Normal | None:
    if record is None:
        return None
    if section == CLIENTS:
        return entries.client_of_record(ClientRecord.model_validate(record))
    return BY_NAME[section].of_record(BY_NAME[section].record.model_validate(record))


async def _current(session: AsyncSession, names: Mapping[str, Collection[str]]) -> dict[str, dict[str, Normal]]:
    """These sections in normal form: of clients those of these names, of others all."""
    found = await sections.current(session, names)
    if CLIENTS in names:
        found[CLIENTS] = {}
        for part in chunks(list(names[CLIENTS]), writes.AT_ONCE):
            records = await client_rows.records(session, part)
            found[CLIENTS] |= {name: entries.client_of_record(record) for name, record in records.items()}
    return found


async def _restore_rule_ids(write: ConfigWrite, number: int, until: int) -> None:
    """A limit that is again as it was goes on with what was counted for it then."""
    await write.session.flush()
    for kind, id, before in await repository.rules_then(write.session, number, until):
        if before is None:
            continue
        plan, rules = (id, before.get("limits", [])) if kind == "plan" else (None, [before])
        ids = {rule["name"]: rule["id"] for rule in rules}
        rows = await rows_of(plan).find_all(write.session, ids)
        changed = [row for name, row in rows.items() if row.rule_id != ids[name]]
        for row in changed:
            row.rule_id = ids[row.name]
        if changed:
            await write.session.flush()
            await publish_limit(write, changed[0])  # a plan's limits are published together
