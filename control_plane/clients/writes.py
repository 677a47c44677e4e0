"""How clients are written, one or 100,000 (which takes seconds): rows, documents and the audit log together."""

import asyncio
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ARRAY, Text, any_, bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from contract.limits import LimitRule
from control_plane.clients.documents import client_document
from control_plane.clients.figures import faults as figure_faults
from control_plane.clients.figures import figures_of, suited
from control_plane.clients.models import KeyRow
from control_plane.clients.repository import generations_left
from control_plane.clients.schemas import ClientFields, ClientRecord, OverrideFigures
from control_plane.errors import FieldError, InvalidError
from control_plane.limits.rules import to_rule
from control_plane.orm import Base
from control_plane.plans.service import Plans
from control_plane.publishing.documents import DocumentKey
from control_plane.publishing.write import ConfigWrite

AT_ONCE = 2_000
Item = TypeVar("Item")
_CLIENTS, _OVERRIDES = Base.metadata.tables["clients"], Base.metadata.tables["overrides"]
_PUT = text("""
INSERT INTO clients (client, plan, status, attributes, external_id, generation)
SELECT wish.client, wish.plan, wish.status, wish.attributes::jsonb, wish.external_id, wish.generation
FROM unnest(CAST(:clients AS text[]), CAST(:plans AS text[]), CAST(:statuses AS text[]), CAST(:attributes AS text[]),
            CAST(:external_ids AS text[]), CAST(:generations AS bigint[]))
    AS wish(client, plan, status, attributes, external_id, generation)
ON CONFLICT (client) DO UPDATE SET plan = excluded.plan, status = excluded.status,
    attributes = excluded.attributes, external_id = excluded.external_id
RETURNING client, generation, created_at
""")
_PUT_OVERRIDES = text("""
INSERT INTO overrides (client, limit_name, "limit", burst, expires_at, then_limit, then_burst)
SELECT client, limit_name, "limit", burst, expires_at, then_limit, then_burst
FROM unnest(CAST(:clients AS text[]), CAST(:names AS text[]), CAST(:limits AS bigint[]),
            CAST(:bursts AS bigint[]), CAST(:ends AS timestamptz[]), CAST(:then_limits AS bigint[]),
            CAST(:then_bursts AS bigint[]))
    AS wish(client, limit_name, "limit", burst, expires_at, then_limit, then_burst)
ON CONFLICT (client, limit_name) DO UPDATE SET "limit" = excluded."limit", burst = excluded.burst,
    expires_at = excluded.expires_at, then_limit = excluded.then_limit, then_burst = excluded.then_burst
""")
_DROP_OVERRIDES = text("""
DELETE FROM overrides USING unnest(CAST(:clients AS text[]), CAST(:names AS text[])) AS gone(client, limit_name)
WHERE overrides.client = gone.client AND overrides.limit_name = gone.limit_name
""")


class ClientWish(NamedTuple):
    """A client as it shall be. ``overrides`` must suit its plan; those ``kept`` stay beside them where they do."""

    client: str
    body: ClientFields
    overrides: Mapping[str, OverrideFigures]
    kept: Mapping[str, OverrideFigures] = {}

    def on(self, rules: Mapping[str, LimitRule]) -> "ClientWish":
        """With all its overrides, on a plan with these rules. What is temporary stands before what is wanted."""
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


def chunks(items: Sequence[Item], size: int = AT_ONCE) -> Iterator[Sequence[Item]]:
    """``items`` in parts."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


async def records(session: AsyncSession, names: Sequence[str]) -> dict[str, ClientRecord]:
    """Those clients of ``names`` that there are, with their overrides."""
    wanted = bindparam("names", list(names), type_=ARRAY(Text(collation="C")))
    found = (await session.execute(select(_CLIENTS).where(_CLIENTS.c.client == any_(wanted)))).all()
    overrides: dict[str, dict[str, OverrideFigures]] = {}
    for row in await session.execute(select(_OVERRIDES).where(_OVERRIDES.c.client == any_(wanted))):
        overrides.setdefault(row.client, {})[row.limit_name] = figures_of(row)
    return {
        row.client: ClientRecord.model_construct(
            client=row.client,
            plan=row.plan,
            status=row.status,
            attributes=row.attributes,
            external_id=row.external_id,
            generation=row.generation,
            created_at=row.created_at,
            overrides=dict(sorted(overrides.get(row.client, {}).items())),
        )
        for row in found
    }


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
    for part in chunks(wishes):
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
    """What is wrong with a wish, by the rules of every plan. ``at`` is its place."""
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
    """Make or change clients in which no fault is, by the rules of every plan; returns them as they are then.

    ``before``: those that there are, where the caller has read them.
    """
    wishes = [wish.on(rules[wish.body.plan]) for wish in part]
    if before is None:
        before = await records(write.session, [wish.client for wish in wishes])
    bodies = [wish.body for wish in wishes]
    left = await generations_left(write.session, [wish.client for wish in wishes if wish.client not in before])
    values = {
        "clients": [wish.client for wish in wishes],
        "plans": [body.plan for body in bodies],
        "statuses": [body.status for body in bodies],
        "attributes": [json.dumps(dict(sorted(body.attributes.items()))) for body in bodies],
        "external_ids": [body.external_id for body in bodies],
        "generations": [left.get(wish.client, 0) for wish in wishes],
    }
    stored = {row.client: row for row in await write.session.execute(_PUT, values)}
    await _put_overrides(write.session, wishes, before)
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


async def _put_overrides(
    session: AsyncSession, wishes: Sequence[ClientWish], before: Mapping[str, ClientRecord]
) -> None:
    wanted = [(wish.client, name, figures) for wish in wishes for name, figures in wish.overrides.items()]
    gone = [
        (wish.client, name)
        for wish in wishes
        if wish.client in before
        for name in before[wish.client].overrides
        if name not in wish.overrides
    ]
    await _drop(session, gone)
    if wanted:
        values: dict[str, list[Any]] = {
            "clients": [client for client, _, _ in wanted],
            "names": [name for _, name, _ in wanted],
            "limits": [figures.limit for _, _, figures in wanted],
            "bursts": [figures.burst for _, _, figures in wanted],
            "ends": [figures.expires_at for _, _, figures in wanted],
            "then_limits": [None if figures.then is None else figures.then.limit for _, _, figures in wanted],
            "then_bursts": [None if figures.then is None else figures.then.burst for _, _, figures in wanted],
        }
        await session.execute(_PUT_OVERRIDES, values)


async def drop_overrides(
    write: ConfigWrite, plan: str, rules: Mapping[str, LimitRule], limits: Collection[str]
) -> None:
    """Take away overrides of these limits that mean nothing any more on the plan with these rules."""
    having = select(_OVERRIDES.c.client).join(_CLIENTS, _CLIENTS.c.client == _OVERRIDES.c.client).distinct()
    wanted = bindparam("limits", list(limits), type_=ARRAY(Text(collation="C")))
    having = having.where(_CLIENTS.c.plan == plan, _OVERRIDES.c.limit_name == any_(wanted))
    names = (await write.session.scalars(having.order_by(_OVERRIDES.c.client))).all()
    for part in chunks(names):
        gone: list[tuple[str, str]] = []
        for name, record in (await records(write.session, part)).items():
            suiting = {limit: suited(rules, limit, one) for limit, one in record.overrides.items()}
            left = {limit: one for limit, one in suiting.items() if one is not None}
            gone += [(name, limit) for limit in record.overrides if limit not in left]
            if left != record.overrides:
                after = record.model_copy(update={"overrides": left})
                write.record("client", name, record, after)
                write.publish(client_document(after))
        await _drop(write.session, gone)


async def _drop(session: AsyncSession, gone: Sequence[tuple[str, str]]) -> None:
    if gone:
        values = {"clients": [client for client, _ in gone], "names": [name for _, name in gone]}
        await session.execute(_DROP_OVERRIDES, values)


async def delete(write: ConfigWrite, names: Sequence[str]) -> None:
    """Delete these clients with their keys and overrides."""
    for part in chunks(names):
        before = await records(write.session, part)
        wanted = bindparam("names", list(part), type_=ARRAY(Text(collation="C")))
        for sha256 in await write.session.scalars(select(KeyRow.sha256).where(KeyRow.client == any_(wanted))):
            write.withdraw(DocumentKey("key", sha256))
        await write.session.execute(text("DELETE FROM clients WHERE client = ANY(:names)"), {"names": list(part)})
        for name, record in before.items():
            write.record("client", name, record, None)
            write.withdraw(DocumentKey("client", name))
