"""The job that looks for drift: documents against what was signed, and tables against documents."""

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.adaptive import service as adaptive
from control_plane.adaptive.models import AdaptivePolicyRow
from control_plane.blocks import service as blocks
from control_plane.blocks.models import BlockRow
from control_plane.clients.figures import client_document
from control_plane.clients.models import ClientRow, KeyRow
from control_plane.clients.service import to_record
from control_plane.credentials.keys.service import key_document
from control_plane.credentials.reporters import service as reporters
from control_plane.credentials.reporters.models import ReporterRow
from control_plane.database import Database
from control_plane.enforcement import service as enforcement
from control_plane.enforcement.models import EnforcementRow
from control_plane.errors import DriftError
from control_plane.jobs.registry import Job
from control_plane.limits.service import OutsideLimits, Plans, publish_plan, to_rule
from control_plane.orm import Base
from control_plane.publishing import repository
from control_plane.publishing.repository import DocumentKey, canonical, key_of
from control_plane.regions import repository as regions
from control_plane.upkeep import repository as drift_rows
from tidegate.contract.config import Document, Plan, bucket_digest, bucket_of, document_hash, root_digest
from tidegate.contract.limits import LimitRule

EVERY_S = 3600.0
MAX_FAULTS = 1_000
MAX_NAMED = 5
_log = structlog.stdlib.get_logger("tidegate.drift")


def drift_job(database: Database) -> Job:
    """Look for drift. It repairs nothing: what differs was not written by us, and wants eyes."""

    async def run() -> str:
        documents, faults = await stored_faults(database)
        faults += await table_faults(database)
        if faults:
            raise DriftError(_sentence(faults))
        return f"{documents} documents have the digest that is signed, and say what the tables say."

    return Job("drift-check", EVERY_S, run)


async def stored_faults(database: Database) -> tuple[int, list[str]]:
    """The number of documents, and every contradiction between documents, buckets and head."""
    faults: list[str] = []
    hashes: dict[int, list[bytes]] = {}
    documents = 0
    async with database.read() as session:
        head = await repository.head(session)
        stored = await repository.bucket_digests(session)
        async for part in repository.stored_documents(session):
            for kind, id, body, hash, bucket in part:
                documents += 1
                computed = document_hash(kind, id, (body or "").encode())
                hashes.setdefault(bucket, []).append(computed)
                if computed != hash or bucket != bucket_of(kind, id):
                    faults.append(f"{kind} {id[:64]} does not match its hash")
    digests = {bucket: bucket_digest(found) for bucket, found in hashes.items()}
    known = {bucket: digest for bucket, digest in stored.items() if digest}
    faults += [f"bucket {bucket} has another digest" for bucket in sorted(set(digests) | set(known))
               if digests.get(bucket) != known.get(bucket)]  # fmt: skip
    if root_digest(digests) != head.digest:
        faults.append(f"revision {head.revision} was signed with another digest")
    return documents, faults


class _Collected:
    """Stands in for a write: what services publish is kept, not written."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session
        self.documents: dict[DocumentKey, str] = {}

    def publish(self, document: Document) -> None:
        """Keep it, without what is not in the tables: where a move of shares stands."""
        self.documents[key_of(document)] = canonical(_without_moves(document))


async def table_faults(database: Database) -> list[str]:
    """Every way in which documents differ from what the tables would make of them now, as of one instant."""
    faults: list[str] = []
    async with database.read() as session:
        for kind in drift_rows.KINDS:
            faults += await _names_differ(session, kind)
        async for wanted in _wanted(session):
            stored = await repository.bodies(session, wanted)
            faults += [
                f"{key.kind} {key.id[:64]} differs from its table"
                for key, body in wanted.items()
                if key in stored and _normal(key, stored[key]) != body
            ]
            if len(faults) > MAX_FAULTS:
                break
    return faults


async def _names_differ(session: AsyncSession, kind: str) -> Iterable[str]:
    there = await drift_rows.document_names(session, kind)
    wanted = await drift_rows.row_names(session, kind)
    missing = [f"{kind} {name[:64]} has no document" for name in sorted(wanted - there)]
    return missing + [
        f"{kind} {name[:64]} is in no table" for name in sorted(there - wanted) if not _is_previous(kind, name)
    ]


def _is_previous(kind: str, name: str) -> bool:
    """Whether that is what a gateway's secret before a rotation goes by, beside the one in the table's row."""
    return kind == "gateway" and "/" in name


async def _wanted(session: AsyncSession) -> AsyncIterator[dict[DocumentKey, str]]:
    collected = _Collected(session)
    for plan in (await Plans.rows.find_all(session)).values():
        await publish_plan(collected, plan)  # type: ignore[arg-type]  # it only publishes
    names = await regions.names(session)
    for row in (await OutsideLimits.rows.find_all(session)).values():
        collected.publish(to_rule(row, names))
    yield collected.documents
    for table, to_document in _DOCUMENTS.items():
        async for rows in drift_rows.all_rows(session, table):
            yield _collected(session, rows, to_document)
    async for clients in drift_rows.rows_by(session, ClientRow, ClientRow.client):
        yield _collected(session, clients, lambda row: client_document(to_record(row)))
    async for keys in drift_rows.rows_by(session, KeyRow, KeyRow.key_id):
        yield _collected(session, keys, key_document)


def _collected(
    session: AsyncSession, rows: Iterable[Any], to_document: Callable[[Any], Document]
) -> dict[DocumentKey, str]:
    collected = _Collected(session)
    for row in rows:
        collected.publish(to_document(row))
    return collected.documents


def _without_moves(document: Document) -> Document:
    if isinstance(document, Plan):
        return msgspec.structs.replace(document, limits=tuple(_plain(rule) for rule in document.limits))
    return _plain(document) if isinstance(document, LimitRule) else document


def _plain(rule: LimitRule) -> LimitRule:
    return msgspec.structs.replace(rule, shares={}, steps=(), parts=(), since_us=0)


def _normal(key: DocumentKey, body: str) -> str:
    if key.kind == "plan":
        return canonical(_without_moves(msgspec.json.decode(body, type=Plan)))
    return canonical(_plain(msgspec.json.decode(body, type=LimitRule))) if key.kind == "limit" else body


def _sentence(faults: list[str]) -> str:
    """The first few faults and their number; all of them are logged."""
    for fault in faults[:MAX_FAULTS]:
        _log.error("drift", fault=fault)
    more = f" and {len(faults) - MAX_NAMED} more" if len(faults) > MAX_NAMED else ""
    return "Drift: " + "; ".join(faults[:MAX_NAMED]) + more + "."


_DOCUMENTS: dict[type[Base], Callable[[Any], Document]] = {
    AdaptivePolicyRow: adaptive.to_document,
    ReporterRow: reporters.to_document,
    BlockRow: blocks.to_document,
    EnforcementRow: enforcement.to_document,
}
"""What becomes one document a row."""
