"""Integrity of stored documents: every hash, bucket digest and the head are computed anew and compared."""

import structlog

from control_plane.database import Database
from control_plane.publishing import repository
from tidegate.contract.digest import bucket_digest, bucket_of, document_hash, root_digest

MAX_NAMED = 5
_log = structlog.stdlib.get_logger("tidegate.drift")


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


def sentence(faults: list[str]) -> str:
    """The first few faults and their number; all of them are logged."""
    for fault in faults[:1_000]:
        _log.error("drift", fault=fault)
    more = f" and {len(faults) - MAX_NAMED} more" if len(faults) > MAX_NAMED else ""
    return "Drift: " + "; ".join(faults[:MAX_NAMED]) + more + "."
