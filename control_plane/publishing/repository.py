"""What is published: documents with natural ids and canonical JSON, the head's signature, and the queries on them."""

import functools
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import ColumnElement, Row, delete, func, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.database import chunks
from control_plane.publishing.models import ConfigBucket, ConfigDocument, ConfigHead, Revision, RolloutPolicy
from tidegate.contract.blocks import Block, EnforcementOverride
from tidegate.contract.config import (
    ApiKey,
    Client,
    Document,
    Endpoint,
    Gateway,
    Kind,
    Plan,
    Region,
    bucket_of,
    document_hash,
    root_digest,
    signed_head,
)
from tidegate.contract.limits import LimitRule
from tidegate.contract.load import AdaptivePolicy, Backend, Reporter

DOCUMENTS_A_QUERY = 1_000
DOCUMENTS_A_STATEMENT = 5_000
_BODIES = text("""
SELECT kind, id, body
FROM unnest(CAST(:kinds AS text[]), CAST(:ids AS text[])) AS wanted(kind, id) JOIN config_documents USING (kind, id)
WHERE body IS NOT NULL
""")
_STORE = text("""
INSERT INTO config_documents (kind, id, body, hash, bucket, revision)
SELECT kind, id, body, hash, bucket, CAST(:revision AS bigint)
FROM unnest(CAST(:kinds AS text[]), CAST(:ids AS text[]), CAST(:bodies AS text[]), CAST(:hashes AS bytea[]),
            CAST(:buckets AS smallint[])) AS given(kind, id, body, hash, bucket)
ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body, hash = excluded.hash, revision = excluded.revision
""")
# computed in the database, which can spill to disk: one revision may have 100,000 clients
_DIFFERENCES = text("""
WITH change AS (
    SELECT number, kind COLLATE "C" AS kind, item->'before' AS before, item->'after' AS after,
           CASE kind WHEN 'key' THEN coalesce(item->'after'->>'key_id', item->'before'->>'key_id', '')
                     ELSE item->>'id' END COLLATE "C" AS id
    FROM revisions, jsonb_array_elements(changes) AS item, LATERAL (SELECT item->>'kind' AS kind) AS named
    WHERE number > :first AND number <= :last
), wanted AS (SELECT * FROM change WHERE (kind, id) > (CAST(:kind AS text), CAST(:id AS text))),
had AS (SELECT DISTINCT ON (kind, id) kind, id, before FROM wanted ORDER BY kind, id, number),
has AS (SELECT DISTINCT ON (kind, id) kind, id, after FROM wanted ORDER BY kind, id, number DESC)
SELECT kind, id, before, after FROM had JOIN has USING (kind, id)
WHERE before IS DISTINCT FROM after ORDER BY kind, id LIMIT :count
""").columns(before=JSONB(none_as_null=True), after=JSONB(none_as_null=True))
_AM_URGENT = text("SELECT set_config('application_name', :name, true)")
_BLOCKS_ANYBODY = text("""
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
               AND :pid = ANY(pg_blocking_pids(pid)))
""")
_URGENT_WAITS = text("""
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
               AND application_name = :name)
""")
URGENT = "tidegate-urgent"
"""The name of a waiting urgent write in ``pg_stat_activity``, where other replicas see it."""
REVISION_CHANNEL = "tidegate_revisions"
NOTHING = root_digest({})
"""The digest of no documents at all."""
HIDDEN = frozenset({"sha256", "previous_sha256"})
"""Members of documents that the admin API never shows."""


class DocumentKey(NamedTuple):
    """The name of a document: kind and natural id."""

    kind: Kind
    id: str

    @property
    def bucket(self) -> int:
        """The document's bucket in the digest."""
        return bucket_of(self.kind, self.id)


class ChangedDocument(NamedTuple):
    """A document before and after a revision; ``None`` where it did not exist."""

    key: DocumentKey
    before: str | None
    after: str | None

    @property
    def hash(self) -> bytes | None:
        """The document's hash as it is now."""
        return None if self.after is None else document_hash(self.key.kind, self.key.id, self.after.encode())

    def as_record(self) -> dict[str, Any]:
        """The change as a revision stores it."""
        before, after = (None if body is None else msgspec.json.decode(body) for body in (self.before, self.after))
        return {"kind": self.key.kind, "id": self.key.id, "before": before, "after": after}


_NAMES: dict[type[Document], tuple[Kind, str]] = {
    Region: ("region", "region"),
    Plan: ("plan", "plan"),
    LimitRule: ("limit", "name"),
    Endpoint: ("endpoint", "endpoint"),
    Backend: ("backend", "backend"),
    Client: ("client", "client"),
    ApiKey: ("key", "sha256"),
    Gateway: ("gateway", "gateway"),
    AdaptivePolicy: ("adaptive_policy", "policy"),
    Reporter: ("reporter", "reporter"),
    Block: ("block", "block"),
    EnforcementOverride: ("enforcement", "target"),
}


def key_of(document: Document) -> DocumentKey:
    """The kind and natural id of a document."""
    kind, member = _NAMES[type(document)]
    return DocumentKey(kind, getattr(document, member))


def canonical(document: Document) -> str:
    """Canonical JSON of a document: sorted members, without those that equal their default.

    Not left to ``omit_defaults``: it compares by identity, so that equal documents could be written in two ways.
    """
    return msgspec.json.encode(_plain(document), order="sorted").decode()


def _plain(value: object) -> object:
    if isinstance(value, msgspec.Struct):
        members = ((name, getattr(value, name), default) for name, default in _defaults(type(value)))
        return {name: _plain(member) for name, member, default in members if member != default}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


@functools.cache
def _defaults(kind: type[msgspec.Struct]) -> tuple[tuple[str, object], ...]:
    return tuple(
        (field.name, field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory())
        for field in msgspec.structs.fields(kind)
    )


class Signer:
    """Signs the head of a revision with the control plane's Ed25519 key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def sign(self, revision: int, digest: str) -> str:
        """The signature (hex) that binds ``digest`` to ``revision``."""
        return self._key.sign(signed_head(revision, digest)).hex()


def shown(record: dict[str, Any]) -> dict[str, Any]:
    """A revision's record without hashes of secrets; keys are named by their ``key_id``."""
    before, after = record["before"], record["after"]
    body = after or before or {}
    id = body.get("key_id", "") if record["kind"] == "key" else record["id"]
    return {"kind": record["kind"], "id": id, "before": _without_hidden(before), "after": _without_hidden(after)}


def _without_hidden(body: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if body is None else {name: value for name, value in body.items() if name not in HIDDEN}


class Head(NamedTuple):
    """The newest revision and its digest."""

    revision: int
    digest: str


async def head(session: AsyncSession) -> Head:
    """The head in this session."""
    row = (await session.execute(select(ConfigHead.revision, ConfigHead.digest))).one()
    return Head(row.revision, row.digest)


async def whole_head(session: AsyncSession) -> ConfigHead:
    """The head with its roll-out."""
    return (await session.execute(select(ConfigHead))).scalar_one()


async def lock_head(session: AsyncSession) -> ConfigHead:
    """The head, locked until the transaction ends: writers queue here."""
    return (await session.execute(select(ConfigHead).with_for_update())).scalar_one()


async def goes_by_steps(session: AsyncSession) -> bool:
    """Whether the policy lets one node try a new plan, limit or route before all others get it."""
    return await session.scalar(select(RolloutPolicy.mode)) == "canary"


async def say_urgent(session: AsyncSession) -> None:
    """Show holders of the head's lock, in every replica, that an urgent write waits."""
    await session.execute(_AM_URGENT, {"name": URGENT})


async def urgent_waits(session: AsyncSession) -> bool:
    """Whether an urgent write waits for a lock, in any replica."""
    return bool(await session.scalar(_URGENT_WAITS, {"name": URGENT}))


async def pid_of(session: AsyncSession) -> int:
    """The number of the server's process behind this session."""
    return int(await session.scalar(text("SELECT pg_backend_pid()")) or 0)


async def blocks_anybody(session: AsyncSession, pid: int) -> bool:
    """Whether another session waits for a lock of that process."""
    return bool(await session.scalar(_BLOCKS_ANYBODY, {"pid": pid}))


async def bodies(session: AsyncSession, keys: Iterable[DocumentKey]) -> dict[DocumentKey, str]:
    """The live documents among ``keys``."""
    found: dict[DocumentKey, str] = {}
    for part in chunks(list(keys), DOCUMENTS_A_STATEMENT):
        values = {"kinds": [key.kind for key in part], "ids": [key.id for key in part]}
        for kind, id, body in await session.execute(_BODIES, values):
            found[DocumentKey(cast("Kind", kind), id)] = body
    return found


async def store_documents(session: AsyncSession, changes: Sequence[ChangedDocument], revision: int) -> None:
    """Write documents after ``revision``; deleted ones stay as tombstones for deltas."""
    for part in chunks(changes, DOCUMENTS_A_STATEMENT):
        values: dict[str, Any] = {
            "kinds": [change.key.kind for change in part],
            "ids": [change.key.id for change in part],
            "bodies": [change.after for change in part],
            "hashes": [change.hash for change in part],
            "buckets": [change.key.bucket for change in part],
            "revision": revision,
        }
        await session.execute(_STORE, values)


async def hashes_by_bucket(session: AsyncSession, buckets: Iterable[int]) -> dict[int, list[bytes]]:
    """The hashes of the live documents in each of ``buckets``."""
    found: dict[int, list[bytes]] = {bucket: [] for bucket in buckets}
    query = select(ConfigDocument.bucket, ConfigDocument.hash)
    query = query.where(ConfigDocument.bucket.in_(list(found)), ConfigDocument.hash.is_not(None))
    for bucket, hash in await session.execute(query):
        found[bucket].append(hash or b"")
    return found


async def hashes_in(session: AsyncSession, buckets: Sequence[int]) -> Sequence[Row[str, str, bytes | None, int]]:
    """Kind, id, hash and bucket of every live document in ``buckets``."""
    query = select(ConfigDocument.kind, ConfigDocument.id, ConfigDocument.hash, ConfigDocument.bucket)
    query = query.where(ConfigDocument.bucket.in_(buckets), ConfigDocument.hash.is_not(None))
    return (await session.execute(query)).all()


async def restamp(session: AsyncSession, keys: Iterable[DocumentKey], revision: int) -> None:
    """Mark these documents as changed by ``revision``, so that every delta to it has them."""
    columns = tuple_(ConfigDocument.kind, ConfigDocument.id)
    for part in chunks(list(keys), DOCUMENTS_A_QUERY):
        await session.execute(update(ConfigDocument).where(columns.in_(part)).values(revision=revision))


async def store_buckets(session: AsyncSession, digests: dict[int, bytes]) -> None:
    """Write the digests of the buckets that changed."""
    statement = insert(ConfigBucket)
    statement = statement.on_conflict_do_update(index_elements=["bucket"], set_={"digest": statement.excluded.digest})
    await session.execute(statement, [{"bucket": bucket, "digest": digest} for bucket, digest in digests.items()])


async def bucket_digests(session: AsyncSession) -> dict[int, bytes]:
    """Every bucket's digest."""
    rows = await session.execute(select(ConfigBucket.bucket, ConfigBucket.digest))
    return {bucket: digest for bucket, digest in rows}  # noqa: C416  rows are no pairs to a type checker


async def notify_revision(session: AsyncSession, revision: int) -> None:
    """Wake every replica when this transaction commits."""
    await session.execute(select(func.pg_notify(REVISION_CHANNEL, str(revision))))


async def is_known(session: AsyncSession, revision: int, digest: str) -> bool:
    """Whether ``revision`` exists and had this digest. Revision 0 is the empty configuration."""
    if revision == 0:
        return digest == NOTHING
    either = or_(Revision.digest == digest, Revision.stable_digest == digest)
    query = select(Revision.number).where(Revision.number == revision, either)
    return (await session.scalar(query)) is not None


async def documents_since(
    session: AsyncSession, base: int | None
) -> AsyncIterator[Sequence[Row[str, str, str | None]]]:
    """Every live document, or after ``base`` every changed one with tombstones, in parts of at most 1,000 rows."""
    query = select(ConfigDocument.kind, ConfigDocument.id, ConfigDocument.body)
    if base is None:
        query = query.where(ConfigDocument.body.is_not(None))
    else:
        query = query.where(ConfigDocument.revision > base)
    result = await session.stream(query.execution_options(yield_per=DOCUMENTS_A_QUERY))
    async for part in result.partitions(DOCUMENTS_A_QUERY):
        yield part


async def stored_documents(
    session: AsyncSession,
) -> AsyncIterator[Sequence[Row[str, str, str | None, bytes | None, int]]]:
    """Every live document with its stored hash and bucket, in parts."""
    query = select(
        ConfigDocument.kind, ConfigDocument.id, ConfigDocument.body, ConfigDocument.hash, ConfigDocument.bucket
    )
    query = query.where(ConfigDocument.body.is_not(None))
    result = await session.stream(query.execution_options(yield_per=DOCUMENTS_A_QUERY))
    async for part in result.partitions(DOCUMENTS_A_QUERY):
        yield part


async def revision(session: AsyncSession, number: int) -> Revision | None:
    """One revision, without what it changed."""
    return await session.scalar(select(Revision).where(Revision.number == number))


async def changes_between(
    session: AsyncSession, one: int, other: int, after: tuple[str, str], count: int
) -> Sequence[dict[str, Any]]:
    """The differences between the documents of two revisions, in either order.

    By kind and id (keys by their ``key_id``), at most ``count`` of what comes after ``after``.
    """
    values = {"first": min(one, other), "last": max(one, other), "kind": after[0], "id": after[1], "count": count}
    rows = (await session.execute(_DIFFERENCES, values)).all()
    return [
        {"kind": row.kind, "id": row.id, "before": row.before, "after": row.after}
        if one <= other
        else {"kind": row.kind, "id": row.id, "before": row.after, "after": row.before}
        for row in rows
    ]


async def revisions_before(
    session: AsyncSession, before: int | None, count: int, where: Sequence[ColumnElement[bool]]
) -> Sequence[Revision]:
    """The newest ``count`` revisions for which ``where`` holds, below ``before`` if given."""
    query = select(Revision).where(*where).order_by(Revision.number.desc()).limit(count)
    if before is not None:
        query = query.where(Revision.number < before)
    return (await session.scalars(query)).all()


async def forget_tombstones(session: AsyncSession, before: datetime) -> int:
    """Delete tombstones from before then. Returns how many. Nodes that are older get a snapshot.

    What a roll-out holds back stays: other nodes do not know yet that it is gone.
    """
    head = await lock_head(session)
    old = select(func.max(Revision.number)).where(Revision.created_at < before)
    newest = await session.scalar(old if head.rollout is None else old.where(Revision.number < head.rollout))
    if newest is None or newest <= head.deltas_from:
        return 0
    head.deltas_from = newest
    gone = delete(ConfigDocument).where(ConfigDocument.body.is_(None), ConfigDocument.revision <= newest)
    return len((await session.scalars(gone.returning(ConfigDocument.id))).all())


async def forget_revisions(session: AsyncSession, before: datetime, count: int) -> int:
    """Delete the changes of at most ``count`` old revisions; the newest, and those since a roll-out began, always
    stay.
    """
    head = await whole_head(session)
    oldest = head.rollout or head.revision
    due = select(Revision.number).where(Revision.created_at < before, Revision.number < oldest)
    due = due.order_by(Revision.number).limit(count)
    gone = delete(Revision).where(Revision.number.in_(due))
    return len((await session.scalars(gone.returning(Revision.number))).all())
