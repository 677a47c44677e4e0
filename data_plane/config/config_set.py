"""All documents of one revision, immutable; a delta makes a new set that shares unchanged buckets."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tidegate.contract.config import Change
from tidegate.contract.digest import BUCKETS, EMPTY_BUCKET, bucket_digest, bucket_of, document_hash, root_digest

Bucket = dict[str, dict[str, bytes]]
"""Encoded documents by kind and id."""


class ConfigSet:
    """Documents in the buckets of their digest: a change copies one bucket of 1,024.

    Most clients and keys exist in a node in this form only. Hashes of documents are computed anew when their bucket
    changes, in less than a millisecond.
    """

    __slots__ = ("_buckets", "_digests", "digest")

    def __init__(self, buckets: Sequence[Bucket], digests: Sequence[bytes]) -> None:
        self._buckets = buckets
        self._digests = digests
        self.digest = root_digest(dict(enumerate(digests)))

    @classmethod
    def empty(cls) -> "ConfigSet":
        """The set without documents."""
        return cls([{}] * BUCKETS, [EMPTY_BUCKET] * BUCKETS)

    def with_changes(self, changes: Iterable[Change]) -> "ConfigSet":
        """The set after ``changes``. Unknown kinds of newer versions are kept too, so that digests agree."""
        touched: dict[int, Bucket] = {}
        for change in changes:
            kind, id, body = change.kind, change.id, change.body
            number = bucket_of(kind, id)
            bucket = touched.get(number)
            if bucket is None:
                bucket = touched[number] = {kind: dict(bodies) for kind, bodies in self._buckets[number].items()}
            bodies = bucket.get(kind)
            if body is not None:
                if bodies is None:
                    bodies = bucket[kind] = {}
                bodies[id] = bytes(body)
            elif bodies is not None:
                bodies.pop(id, None)
        buckets, digests = list(self._buckets), list(self._digests)
        for number, bucket in touched.items():
            buckets[number] = bucket
            digests[number] = bucket_digest(
                document_hash(kind, id, body) for kind, bodies in bucket.items() for id, body in bodies.items()
            )
        return ConfigSet(buckets, digests)

    def body(self, kind: str, id: str) -> bytes | None:
        """One encoded document, or ``None``."""
        bodies = self._buckets[bucket_of(kind, id)].get(kind)
        return None if bodies is None else bodies.get(id)

    def changed(self, before: "ConfigSet", kind: str) -> Iterator[tuple[bytes | None, bytes | None]]:
        """Documents of a kind that differ from those of ``before``, as pairs of old and new."""
        for number, digest in enumerate(self._digests):
            if before.has_bucket(number, digest):
                continue
            old, new = before.bodies(number, kind), self.bodies(number, kind)
            yield from ((old.get(id), new.get(id)) for id in old.keys() | new.keys() if old.get(id) != new.get(id))

    def has_bucket(self, number: int, digest: bytes) -> bool:
        """Whether the bucket has that digest."""
        return self._digests[number] == digest

    def bodies(self, number: int, kind: str) -> Mapping[str, bytes]:
        """A bucket's encoded documents of a kind, by id."""
        return self._buckets[number].get(kind, {})

    def documents(self) -> Iterator[tuple[str, str, bytes]]:
        """Every document: kind, id, body."""
        for bucket in self._buckets:
            for kind, bodies in bucket.items():
                for id, body in bodies.items():
                    yield kind, id, body

    def __len__(self) -> int:
        return sum(len(bodies) for bucket in self._buckets for bodies in bucket.values())
