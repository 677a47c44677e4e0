"""One revision, immutable: all its documents, and the index that finds the client and the limits of a request."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from data_plane.config.blocks import Blocks
from data_plane.config.rulebook import Rulebook, limit_set_key_of
from data_plane.store.subjects import generation_end, tag
from tidegate.contract.blocks import Block, block_violations
from tidegate.contract.config import (
    BUCKETS,
    DOCUMENT_TYPES,
    EMPTY_BUCKET,
    Change,
    Client,
    Plan,
    bucket_digest,
    bucket_of,
    document_hash,
    root_digest,
)
from tidegate.contract.decoding import UNREADABLE
from tidegate.contract.limits import LimitRule, Violation, violations
from tidegate.contract.load import AdaptivePolicy, Backend, backend_violations, policy_violations

_MAX_KNOWN = 65_536
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(document) for kind, document in DOCUMENT_TYPES.items()
}
_MANY = frozenset({"client", "key"})
Bucket = dict[str, dict[str, bytes]]
"""Encoded documents by kind and id."""
_SHA256 = re.compile("[0-9a-f]{64}")


class InvalidConfigError(Exception):
    """A document that this process cannot enforce; the last good index stays in force."""


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
        """Every document: kind, id, body; the same order for all who have the same documents."""
        for bucket in self._buckets:
            for kind, bodies in sorted(bucket.items()):
                for id, body in sorted(bodies.items()):
                    yield kind, id, body

    def __len__(self) -> int:
        return sum(len(bodies) for bucket in self._buckets for bodies in bucket.values())


class Principal(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A client ready for the hot path, by name or by one of its keys; compared and hashed by identity."""

    client: Client
    plan: str
    tag: bytes
    """The beginning of its counters' keys."""
    end: bytes
    """The end of its counters' keys: its generation, empty for most."""
    json: bytes
    """Its name as JSON."""
    limit_set_key: str | None
    """Its limit-set key (``rulebook.ResolutionCache``); ``None`` if its limits change with time or it is not active."""
    key_id: str = ""
    """The API key of the request; empty if a gateway named the client."""
    until_us: int = sys.maxsize
    """When the key expires, microseconds since the epoch."""


class Clients:
    """The clients of one configuration, decoded at first use, as most are never used."""

    __slots__ = ("_config", "made")

    def __init__(self, config: ConfigSet) -> None:
        self._config = config
        self.made: dict[str | None, Principal] = {}
        """Decoded clients by name; bounded."""

    def get(self, name: str) -> Principal | None:
        """The client of that name, or ``None``."""
        made = self.made.get(name)
        if made is not None:
            return made
        body = self._config.body("client", name)
        if body is None:
            return None
        if len(self.made) >= _MAX_KNOWN:
            self.made.clear()
        made = self.made[name] = _principal(_DECODERS["client"].decode(body))
        return made


class RuleIndex:
    """All that a decision needs of one revision: the rulebook, blocks, clients and keys.

    Clients and keys, tens of thousands of them, stay encoded in ``config``: they are decoded once for validation and
    again at first use.
    """

    __slots__ = ("blocks", "book", "clients", "config", "known", "named")

    def __init__(self, book: Rulebook, config: ConfigSet, blocks: Blocks | None = None) -> None:
        self.book = book
        self.config = config
        self.blocks = blocks
        """Blocks; ``None`` without any."""
        self.clients = Clients(config)
        self.named = self.clients.made
        """Clients used under this revision, by name; bounded."""
        self.known: dict[str | None, Principal] = {}
        """API keys used under this revision, with their clients; bounded. A reader must check ``until_us``."""

    def principal_of(self, api_key: str, now_us: int) -> Principal | None:
        """The client of an API key; ``None`` if the key is unknown, expired or without a client."""
        principal = self.known.get(api_key)
        if principal is None:
            principal = self._find(sha256(api_key.encode()).hexdigest())
            if principal is None:
                return None
            if len(self.known) >= _MAX_KNOWN:
                self.known.clear()
            self.known[api_key] = principal
        return principal if now_us < principal.until_us else None

    def _find(self, key_hash: str) -> Principal | None:
        body = self.config.body("key", key_hash)
        if body is None:
            return None
        key = _DECODERS["key"].decode(body)
        principal = self.clients.get(key.client)
        if principal is None:
            return None
        until_us = sys.maxsize if key.expires_at is None else int(key.expires_at * 1_000_000)
        return msgspec.structs.replace(principal, key_id=key.key_id, until_us=until_us)

    @classmethod
    def empty(cls, region: str) -> "RuleIndex":
        """The index without a configuration: it limits nothing."""
        return cls(Rulebook(region, {}), ConfigSet.empty())

    @classmethod
    def of(cls, region: str, config: ConfigSet) -> "RuleIndex":
        """The index of a whole configuration. Raises ``InvalidConfigError``."""
        documents = (Change(kind, id, msgspec.Raw(body)) for kind, id, body in config.documents())
        return cls.empty(region).with_changes(documents, config)

    def with_changes(self, changes: Iterable[Change], config: ConfigSet | None = None) -> "RuleIndex":
        """The index after ``changes``; ``config`` is the configuration after them, if the caller has it already.

        Raises ``InvalidConfigError`` that names the document and what is wrong.
        """
        if config is None:
            changes = tuple(changes)
            config = self.config.with_changes(changes)
        sections: dict[str, dict[str, msgspec.Struct]] = {}
        blocks = None if self.blocks is None else dict(self.blocks.documents)
        for change in changes:
            document = decode_document(change)
            if change.kind in _MANY:
                continue
            if change.kind == "block":
                blocks = blocks or {}
                blocks.pop(change.id, None)
                if isinstance(document, Block):
                    blocks[change.id] = document
            elif change.kind in DOCUMENT_TYPES:
                section = sections.setdefault(change.kind, dict(self.book.sections.get(change.kind, {})))
                if document is None:
                    section.pop(change.id, None)
                else:
                    section[change.id] = document
        # Clients and keys change all day; the rulebook then stays, with its caches.
        book = Rulebook(self.book.region, {**self.book.sections, **sections}) if sections else self.book
        changed = blocks is not None and (self.blocks is None or blocks != self.blocks.documents)
        return RuleIndex(book, config, (Blocks(blocks) if blocks else None) if changed else self.blocks)

    def without_ended_overrides(self, now_s: float) -> "RuleIndex":
        """This index without enforcement overrides that ended by ``now_s`` (epoch seconds); itself if none did."""
        book = self.book.without_ended_overrides(now_s)
        return self if book is self.book else RuleIndex(book, self.config, self.blocks)


def decode_document(change: Change) -> msgspec.Struct | None:
    """The validated document of a change; ``None`` for a deletion and for unknown kinds."""
    kind, body = change.kind, change.body
    decoder = _DECODERS.get(kind)
    if decoder is None or body is None:
        return None
    try:
        document: msgspec.Struct = decoder.decode(body)
    except UNREADABLE as error:
        raise InvalidConfigError(f"{kind} {change.id!r}: {error}") from error
    if kind in _MANY:
        _check_name(kind, change.id)
        return document
    for rule in _rules(document):
        for field, message in violations(rule):
            raise InvalidConfigError(f"{kind} {change.id!r}: limit {rule.name!r}: {field}: {message}")
    for field, message in block_violations(document) if isinstance(document, Block) else ():
        raise InvalidConfigError(f"{kind} {change.id!r}: {field}: {message}")
    for field, message in _load_violations(document):
        raise InvalidConfigError(f"{kind} {change.id!r}: {field}: {message}")
    return document


def _check_name(kind: str, id: str) -> None:
    if kind == "key" and _SHA256.fullmatch(id) is None:
        raise InvalidConfigError(f"key {id[:8]!r}...: the id is not a hex SHA-256")


def _rules(document: msgspec.Struct) -> Iterable[LimitRule]:
    if isinstance(document, Plan):
        return document.limits
    return (document,) if isinstance(document, LimitRule) else ()


def _load_violations(document: msgspec.Struct) -> Iterable[Violation]:
    if isinstance(document, AdaptivePolicy):
        return policy_violations(document)
    return backend_violations(document) if isinstance(document, Backend) else ()


def _principal(client: Client) -> Principal:
    return Principal(
        client=client,
        plan=client.plan,
        tag=tag("client", client.client).encode(),
        end=generation_end(client.generation).encode(),
        json=msgspec.json.encode(client.client),
        limit_set_key=limit_set_key_of(client) if client.status == "active" else None,
    )
