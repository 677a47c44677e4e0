"""Writes clients, one or 100,000 (which takes seconds): rows, documents and the audit log together."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.clients import repository
from control_plane.clients.figures import client_document, suited
from control_plane.clients.figures import faults as figure_faults
from control_plane.clients.schemas import ClientFields, ClientRecord, OverrideFigures
from control_plane.database import chunks
from control_plane.errors import FieldError, InvalidError
from control_plane.limits.service import Plans, to_rule
from control_plane.publishing.repository import DocumentKey
from control_plane.publishing.writer import ConfigWrite
from tidegate.contract.limits import LimitRule

AT_ONCE = 2_000


class ClientWish(NamedTuple):
    """A client to write. ``overrides`` must fit its plan; ``kept`` ones stay as far as they fit."""

    client: str
    body: ClientFields
    overrides: Mapping[str, OverrideFigures]
    kept: Mapping[str, OverrideFigures] = {}

    def on(self, rules: Mapping[str, LimitRule]) -> "ClientWish":
        """The wish with ``kept`` among its overrides: a temporary one holds first, and then the wanted one."""
        overrides = dict(self.overrides)
        for name, figures in self.kept.items():
            wanted = self.overrides.get(name)
            if wanted is not None and figures.expires_at is None:
                continue
            both = figures
            if wanted is not None:
                both = figures.model_copy(update={"then": wanted.lasting})
            left = suited(rules, name, both)
            if left is not None:
                overrides[name] = left
        return ClientWish(self.client, self.body, overrides)


async def put(
    write: ConfigWrite, wishes: Sequence[ClientWish], *, at: str = "", progress: Callable[[int], None] | None = None
) -> None:
    """Make or change all these clients. Raises :class:`InvalidError` that names each wrong one; then nothing is done.

    ``at`` is their place in the body; ``progress`` hears how many are done. A generation stays as it is.
    """
    rules = await rules_of(write.session, (wish.body.plan for wish in wishes))
    errors = [error for wish in wishes for error in faults(wish, rules, f"{at}{wish.client}.")]
    if errors:
        raise InvalidError(errors[:100])
    done = 0
    for part in chunks(wishes, AT_ONCE):
        await put_part(write, part, rules)
        done += len(part)
        if progress is not None:
            progress(done)
        await asyncio.sleep(0)  # streams want their heartbeats meanwhile


async def rules_of(session: AsyncSession, names: Iterable[str]) -> Mapping[str, Mapping[str, LimitRule]]:
    """The rules of those plans that there are, by the limit's name."""
    plans = await Plans.rows.find_all(session, set(names))
    return {name: {limit.name: to_rule(limit, ()) for limit in plan.limits} for name, plan in plans.items()}


def faults(wish: ClientWish, rules: Mapping[str, Mapping[str, LimitRule]], at: str) -> Iterator[FieldError]:
    """The faults of a client to write, by the rules of every plan. ``at`` is its place."""
    of_plan = rules.get(wish.body.plan)
    if of_plan is None:
        yield FieldError(f"{at}plan", f"there is no plan named {wish.body.plan}")
        return
    for name, figures in wish.overrides.items():
        rule = of_plan.get(name)
        if rule is None:
            yield FieldError(f"{at}overrides.{name}", f"the plan {wish.body.plan} has no limit named {name}")
            continue
        for fault in figure_faults(rule, figures):
            yield FieldError(f"{at}overrides.{name}.{fault.field}", fault.message)


async def put_part(
    write: ConfigWrite,
    part: Sequence[ClientWish],
    rules: Mapping[str, Mapping[str, LimitRule]],
    before: Mapping[str, ClientRecord] | None = None,
) -> dict[str, ClientRecord]:
    """Create or change valid clients, by the rules of every plan. Returns them afterwards.

    ``before``: those that there are, where the caller has read them.
    """
    wishes = [wish.on(rules[wish.body.plan]) for wish in part]
    if before is None:
        before = await repository.records(write.session, [wish.client for wish in wishes])
    session = write.session
    left = await repository.generations_left(session, [wish.client for wish in wishes if wish.client not in before])
    stored = await repository.put(session, {wish.client: wish.body for wish in wishes}, left)
    gone = [
        (wish.client, name)
        for wish in wishes
        if wish.client in before
        for name in before[wish.client].overrides
        if name not in wish.overrides
    ]
    await repository.drop_overrides(session, gone)
    wanted = [(wish.client, name, figures) for wish in wishes for name, figures in wish.overrides.items()]
    await repository.put_overrides(session, wanted)
    made = {}
    for wish in wishes:
        row, body = stored[wish.client], wish.body
        after = made[wish.client] = ClientRecord.model_construct(
            client=wish.client,
            plan=body.plan,
            status=body.status,
            attributes=dict(sorted(body.attributes.items())),
            external_id=body.external_id,
            generation=row.generation,
            created_at=row.created_at,
            overrides=dict(sorted(wish.overrides.items())),
        )
        write.record("client", wish.client, before.get(wish.client), after)
        write.publish(client_document(after))
    return made


async def drop_overrides(
    write: ConfigWrite, plan: str, rules: Mapping[str, LimitRule], limits: Collection[str]
) -> None:
    """Delete what no longer fits of overrides of these limits of the plan, which has these rules."""
    names = await repository.overriding(write.session, plan, limits)
    for part in chunks(names, AT_ONCE):
        gone: list[tuple[str, str]] = []
        changed: list[tuple[str, str, OverrideFigures]] = []
        for name, record in (await repository.records(write.session, part)).items():
            suiting = {limit: suited(rules, limit, one) for limit, one in record.overrides.items()}
            left = {limit: one for limit, one in suiting.items() if one is not None}
            gone += [(name, limit) for limit in record.overrides if limit not in left]
            changed += [(name, limit, one) for limit, one in left.items() if one != record.overrides[limit]]
            if left != record.overrides:
                after = record.model_copy(update={"overrides": left})
                write.record("client", name, record, after)
                write.publish(client_document(after))
        await repository.drop_overrides(write.session, gone)
        await repository.put_overrides(write.session, changed)


async def delete(write: ConfigWrite, names: Sequence[str]) -> None:
    """Delete these clients with their keys and overrides."""
    for part in chunks(names, AT_ONCE):
        before = await repository.records(write.session, part)
        for sha256 in await repository.delete_all(write.session, part):
            write.withdraw(DocumentKey("key", sha256))
        for name, record in before.items():
            write.record("client", name, record, None)
            write.withdraw(DocumentKey("client", name))
