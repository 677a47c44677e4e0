"""Documents of clients for nodes, and the figures of overrides: rows, documents, and their validation."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Row

from control_plane.clients.models import OverrideRow
from control_plane.clients.schemas import ClientRecord, LastingFigures, OverrideFigures
from tidegate.contract.config import Client, Override
from tidegate.contract.limits import LimitRule, Violation, violations


def figures_of(row: OverrideRow | Row[Any]) -> OverrideFigures:
    """The figures of a row of overrides."""
    then = None
    if row.expires_at is not None and row.then_limit is not None:
        then = LastingFigures(limit=row.then_limit, burst=row.then_burst)
    return OverrideFigures.model_construct(limit=row.limit, burst=row.burst, expires_at=row.expires_at, then=then)


def ends_at(figures: LastingFigures) -> datetime | None:
    """When these figures end, if they do."""
    return figures.expires_at if isinstance(figures, OverrideFigures) else None


def document_of(figures: OverrideFigures) -> Override:
    """The document of an override."""
    then = figures.then
    return Override(
        limit=figures.limit,
        burst=figures.burst,
        expires_at=None if figures.expires_at is None else figures.expires_at.timestamp(),
        then=None if then is None else Override(limit=then.limit, burst=then.burst),
    )


def faults(rule: LimitRule, figures: LastingFigures) -> Iterator[Violation]:
    """What is wrong with these figures in place of those of ``rule``."""
    changed = {"limit": figures.limit} if figures.burst is None else {"limit": figures.limit, "burst": figures.burst}
    yield from violations(msgspec.structs.replace(rule, **changed))


def suited(rules: Mapping[str, LimitRule], name: str, figures: OverrideFigures) -> OverrideFigures | None:
    """What stays of the figures for the limit ``name`` of a plan with these rules: those that are sound in its place.

    Temporary figures stay without ``then``, and ``then`` stays as figures without an end. ``None``: nothing stays.
    """
    rule = rules.get(name)
    if rule is None:
        return None
    then = None if figures.then is None or any(faults(rule, figures.then)) else figures.then
    if not any(faults(rule, figures)):
        return figures if then == figures.then else figures.model_copy(update={"then": then})
    return None if then is None else OverrideFigures(limit=then.limit, burst=then.burst, expires_at=None)


def client_document(client: ClientRecord) -> Client:
    """The document of a client, with its overrides."""
    return Client(
        client=client.client,
        plan=client.plan,
        status=client.status,
        attributes=client.attributes,
        overrides={name: document_of(figures) for name, figures in client.overrides.items()},
        generation=client.generation,
    )
