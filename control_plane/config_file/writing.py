"""Makes the configuration what a file says: through the resources' own writing, in one transaction."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from control_plane.clients import repository as client_rows
from control_plane.clients import writes
from control_plane.clients.schemas import OverrideFigures
from control_plane.clients.writes import ClientWish
from control_plane.config_file import entries, sections
from control_plane.config_file.differences import Difference, differences
from control_plane.config_file.entries import Normal
from control_plane.config_file.places import within
from control_plane.config_file.schemas import ClientEntry
from control_plane.config_file.sections import BY_NAME, CLIENTS, SECTIONS, ConfigFile, Section
from control_plane.database import chunks
from control_plane.errors import ConflictError, FieldError
from control_plane.limits.service import changed_but_limit
from control_plane.publishing.writer import ConfigWrite
from control_plane.web.etags import Preconditions

Progress = Callable[[int], None]
NOT_NAMED = "it is left out, so it would be deleted, and may not go:"
SHOWN = 3
MOST_NAMED = 100


async def differences_to(write: ConfigWrite, file: ConfigFile, *, prunes_clients: bool) -> list[Difference]:
    """What must change, section by section."""
    found: list[Difference] = []
    present = await sections.current(write.session, [name for name in BY_NAME if getattr(file, name) is not None])
    for section in SECTIONS:
        wanted: Mapping[str, Any] | None = getattr(file, section.name)
        if wanted is None:
            continue
        current = present[section.name]
        normal = {}
        for name, entry in wanted.items():
            with within(f"{section.name}.{name}"):
                normal[name] = section.keeping(section.normal(entry), current.get(name))
        found += differences(section.name, current, normal, deletes=True)
    if file.clients is not None:
        found += await _client_differences(write, file.clients, prunes=prunes_clients)
    return found


async def _client_differences(
    write: ConfigWrite, wanted: Mapping[str, ClientEntry], *, prunes: bool
) -> list[Difference]:
    found: list[Difference] = []
    for part in chunks(list(wanted), writes.AT_ONCE):
        records = await client_rows.records(write.session, part)
        current = {name: entries.client_of_record(record) for name, record in records.items()}
        normal = {}
        for name in part:
            normal[name] = entries.client_of_entry(wanted[name])
            before = current.get(name)
            if before is not None and not prunes and "overrides" in before:
                # overrides go with --prune clients alone
                kept = {**before["overrides"], **normal[name].get("overrides", {})}
                normal[name]["overrides"] = dict(sorted(kept.items()))
        found += differences(CLIENTS, current, normal, deletes=False)
    if prunes:
        async for records in sections.client_records(write.session):
            found += [
                Difference(CLIENTS, name, entries.client_of_record(record), None)
                for name, record in records.items()
                if name not in wanted
            ]
    return found


async def apply(
    write: ConfigWrite, file: ConfigFile, changes: Sequence[Difference], progress: Progress | None = None
) -> None:
    """Write all of ``changes``. Raises :class:`InvalidError` or :class:`ConflictError` that name the place."""
    plans = [change.name for change in changes if change.section == "plans" and change.before is not None]
    rules_before = await writes.rules_of(write.session, plans)
    gone = [change for change in changes if change.after is None]
    first = [change for change in gone if change.section != CLIENTS and BY_NAME[change.section].goes_first]
    await delete(write, first)
    for section in SECTIONS:
        mine = [change for change in changes if change.section == section.name]
        if mine and section.before_all is not None:
            await section.before_all(write.session, [change.name for change in mine if change.before is not None])
        for change in mine:
            if change.after is None:
                continue
            entry = getattr(file, section.name)[change.name]
            limits = list(entry.limits) if section.name == "plans" else []
            with within(f"{section.name}.{change.name}", limits):
                await section.resource.replace(write, change.name, section.body(entry), Preconditions())
                await write.session.flush()
            if section.afterwards is not None:
                with within(f"{section.name}.{change.name}"):
                    await section.afterwards(write, change.name, change.after)
    clients = [change for change in changes if change.section == CLIENTS and change.after]
    await put_clients(write, file.clients or {}, clients, progress)
    await delete(write, [change for change in gone if change not in first])
    # what follows from the write would delete them later, when nobody can say so any more
    rules = await writes.rules_of(write.session, plans)
    for plan, before in rules_before.items():
        after = rules.get(plan, {})
        await writes.drop_overrides(write, plan, after, changed_but_limit(before, after))


def lost_overrides(write: ConfigWrite, pruned: Collection[str]) -> list[Difference]:
    """What this write deleted of overrides as it does not fit their client's plan any more, each a deletion of its own.

    Where one of both stays it is ``.temporary`` or ``.then`` of the override. What lasted of ``pruned`` clients went as
    the file says.
    """
    before: dict[str, Normal] = {}
    after: dict[str, Normal] = {}
    for event in write.events:
        if event.resource == "client" and event.before is not None and event.after is not None:
            before.setdefault(event.name, event.before["overrides"])
            after[event.name] = event.after["overrides"]
    lost = []
    for client, overrides in before.items():
        for limit, was in overrides.items():
            now = after[client].get(limit)
            temporary = was["expires_at"] is not None and (now is None or now["expires_at"] is None)
            lasting = client not in pruned and _lasts(was) and (now is None or not _lasts(now))
            if not temporary and not lasting:
                continue
            part, figures = "", was
            if now is not None:
                part, figures = (".then", was["then"]) if lasting else (".temporary", {**was, "then": None})
            figures = {member: value for member, value in figures.items() if value is not None}
            lost.append(Difference(CLIENTS, f"{client}.overrides.{limit}{part}", figures, None))
    return sorted(lost, key=lambda one: one.name)


def _lasts(figures: Normal) -> bool:
    """Whether some of an override's figures, as they are recorded, have no end."""
    return figures["expires_at"] is None or figures["then"] is not None


async def put_clients(
    write: ConfigWrite,
    wanted: Mapping[str, ClientEntry],
    changes: Sequence[Difference],
    progress: Progress | None,
) -> None:
    """Make or change clients. Overrides that expire stay as they are, before what the file says."""
    wishes = []
    for part in chunks(changes, writes.AT_ONCE):
        before = await client_rows.records(write.session, [change.name for change in part])
        for change in part:
            entry = wanted[change.name]
            overrides = {
                name: OverrideFigures(limit=item.limit, burst=item.burst, expires_at=None)
                for name, item in entry.overrides.items()
            }
            # with those that stay they may be more than an entry may have, until those go that do not fit its plan
            lasting = (change.after or {}).get("overrides", {})
            kept = {} if change.name not in before else _kept(before[change.name].overrides, lasting)
            wishes.append(ClientWish(change.name, entries.client_body(entry), overrides, kept))
    await writes.put(write, wishes, at="clients.", progress=progress)


def _kept(before: Mapping[str, OverrideFigures], lasting: Collection[str]) -> dict[str, OverrideFigures]:
    """The overrides that stay: temporary ones, and of those without an end the ones that ``lasting`` names."""
    return {
        name: figures if name in lasting else figures.model_copy(update={"then": None})
        for name, figures in before.items()
        if name in lasting or figures.expires_at is not None
    }


async def delete(write: ConfigWrite, changes: Sequence[Difference]) -> None:
    """Delete what shall not be, what depends on others first.

    Raises :class:`ConflictError` that names each thing that may not go, and why.
    """
    await writes.delete(write, [change.name for change in changes if change.section == CLIENTS])
    stays: list[FieldError] = []
    for section in reversed(SECTIONS):
        for change in changes:
            if change.section == section.name:
                stays += await _delete_one(write, section, change.name)
    if stays:
        raise ConflictError("; ".join(f"{item.field}: {item.message}" for item in stays[:SHOWN]), stays[:MOST_NAMED])


async def _delete_one(write: ConfigWrite, section: Section, name: str) -> list[FieldError]:
    """Delete one thing. Returns why it may not go; then it stays as it was."""
    try:
        with within(f"{section.name}.{name}"):
            async with write.session.begin_nested():
                await section.resource.delete(write, name, Preconditions())
    except ConflictError as error:
        return [FieldError(item.field, f"{NOT_NAMED} {item.message}") for item in error.errors]
    return []
