"""All documents of one revision, immutable: a delta makes a new set that shares what did not change."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from contract.config import Change
from contract.digest import BUCKETS, EMPTY_BUCKET, bucket_digest, bucket_of, document_hash, root_digest


class StoredDocument(NamedTuple):
    """A document as it travelled, and its hash."""

    body: bytes
    hash: bytes


Bucket = dict[tuple[str, str], StoredDocument]


class ConfigSet:
    """The documents, kept in the buckets of their digest: a change copies one bucket of 1,024, never the whole."""

    __slots__ = ("_buckets", "_digests", "digest")

    def __init__(self, buckets: Sequence[Bucket], digests: Sequence[bytes]) -> None:
        self._buckets = buckets
        self._digests = digests
        self.digest = root_digest(dict(enumerate(digests)))

    @classmethod
    def empty(cls) -> "ConfigSet":
        """The set with no document."""
        return cls([{} for _ in range(BUCKETS)], [EMPTY_BUCKET] * BUCKETS)

    def with_changes(self, changes: Iterable[Change]) -> "ConfigSet":
        """The set after ``changes``; kinds of a newer version than ours are kept too, so that digests agree."""
        touched: dict[int, Bucket] = {}
        for change in changes:
            number = bucket_of(change.kind, change.id)
            if number not in touched:
                touched[number] = dict(self._buckets[number])
            name = (change.kind, change.id)
            if change.body is None:
                touched[number].pop(name, None)
            else:
                body = bytes(change.body)
                touched[number][name] = StoredDocument(body, document_hash(change.kind, change.id, body))
        buckets, digests = list(self._buckets), list(self._digests)
        for number, bucket in touched.items():
            buckets[number] = bucket
            digests[number] = bucket_digest(document.hash for document in bucket.values())
        return ConfigSet(buckets, digests)

    def documents(self) -> Iterator[tuple[str, str, bytes]]:
        """Every document: kind, id, body."""
        for bucket in self._buckets:
            for (kind, id), document in bucket.items():
                yield kind, id, document.body

    def __len__(self) -> int:
        return sum(map(len, self._buckets))
