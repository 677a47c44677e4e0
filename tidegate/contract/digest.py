"""The content hash of a configuration: the same documents have the same digest, whatever the order they came in.

A two-level Merkle tree with a fixed fan-out, so that one changed document costs one bucket and one root, not a pass
over 100,000. Both planes compute it: the control plane to sign it, a node to prove that it has what was signed.
"""

import hashlib
from collections.abc import Iterable, Mapping

BUCKETS = 1024
EMPTY_BUCKET = b""


def bucket_of(kind: str, id: str) -> int:
    """The bucket (0..1023) that a document belongs to."""
    return int.from_bytes(hashlib.sha256(f"{kind}\0{id}".encode()).digest()[:2], "big") % BUCKETS


def document_hash(kind: str, id: str, body: bytes) -> bytes:
    """SHA-256 of one document; the lengths in front keep ("a", "bc") and ("ab", "c") apart."""
    name = f"{len(kind)} {len(id)} {kind}{id} ".encode()
    return hashlib.sha256(name + body).digest()


def bucket_digest(hashes: Iterable[bytes]) -> bytes:
    """The digest of a bucket from the hashes of its documents, in any order; ``EMPTY_BUCKET`` for none."""
    ordered = sorted(hashes)
    return hashlib.sha256(b"".join(ordered)).digest() if ordered else EMPTY_BUCKET


def root_digest(buckets: Mapping[int, bytes]) -> str:
    """The digest (hex) of the whole from the digests of its buckets; empty and absent buckets are the same."""
    whole = hashlib.sha256()
    for number in range(BUCKETS):
        digest = buckets.get(number, EMPTY_BUCKET)
        if digest:
            whole.update(number.to_bytes(2, "big") + digest)
    return whole.hexdigest()
