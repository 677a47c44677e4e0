"""The rule index: one immutable value that answers which limits apply to a request. A new revision is a new index."""

import sys
from collections.abc import Hashable, Iterable
from hashlib import sha256
from typing import Generic, NamedTuple, TypeVar

import msgspec

from contract.blocks import Block, block_violations
from contract.config import DOCUMENT_TYPES, ApiKey, Change, Client, Plan
from contract.limits import LimitRule, Violation, violations
from contract.load import AdaptivePolicy, Backend, backend_violations, policy_violations
from data_plane.domain.blocks import Blocks
from data_plane.domain.config_set import ConfigSet
from data_plane.domain.rulebook import Rulebook
from data_plane.domain.sharded_map import ShardedMap
from data_plane.domain.subjects import generation_end, tag

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_MAX_KNOWN = 65_536


class InvalidConfigError(Exception):
    """A document that this node cannot enforce; the last good index stays."""


class Principal(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A client made ready for the hot path, by itself or as one of its keys; compared and hashed as an object."""

    client: Client
    plan: str
    tag: bytes
    """What its keys in the store begin with."""
    end: bytes
    """What they end with: its generation, empty for most."""
    json: bytes
    """Its name as JSON."""
    plain: bool
    """Active, with nothing of its own: what its plan and the route say holds."""
    key_id: str = ""
    """The API key that was shown; empty where a gateway named the client."""
    until_us: int = sys.maxsize
    """When that key ends, microseconds since the epoch."""


class KeyEntry(NamedTuple):
    """What an API key's hash leads to. ``expires_at`` is epoch seconds or ``None``."""

    client: str
    key_id: str
    expires_at: float | None


class RuleIndex:
    """Everything a decision needs of one revision: the rulebook, and by the ten thousands clients and keys."""

    __slots__ = ("blocks", "book", "clients", "keys", "known")

    def __init__(
        self,
        book: Rulebook,
        clients: ShardedMap[str, Principal],
        keys: ShardedMap[bytes, KeyEntry],
        blocks: Blocks | None = None,
    ) -> None:
        self.book = book
        self.blocks = blocks
        """Who is refused whatever limits say; ``None`` when nobody is."""
        self.clients = clients
        self.keys = keys
        self.known: dict[str | None, Principal] = {}
        """API keys that were used under this revision, and whose they are; bounded. Look at ``until_us``."""

    def principal_of(self, api_key: str, now_us: int) -> Principal | None:
        """The client of an API key; ``None`` when the key is unknown, expired or without a client."""
        principal = self.known.get(api_key)
        if principal is None:
            principal = self._find(sha256(api_key.encode()).digest())
            if principal is None:
                return None
            if len(self.known) >= _MAX_KNOWN:
                self.known.clear()
            self.known[api_key] = principal
        return principal if now_us < principal.until_us else None

    def _find(self, key_hash: bytes) -> Principal | None:
        entry = self.keys.get(key_hash)
        if entry is None:
            return None
        principal = self.clients.get(entry.client)
        if principal is None:
            return None
        until_us = sys.maxsize if entry.expires_at is None else int(entry.expires_at * 1_000_000)
        return msgspec.structs.replace(principal, key_id=entry.key_id, until_us=until_us)

    @classmethod
    def empty(cls, region: str) -> "RuleIndex":
        """The index of no configuration: nothing is limited."""
        return cls(Rulebook(region, {}), ShardedMap(), ShardedMap())

    @classmethod
    def of(cls, region: str, config: ConfigSet) -> "RuleIndex":
        """The index of a whole configuration. Raises ``InvalidConfigError``."""
        documents = (Change(kind, id, msgspec.Raw(body)) for kind, id, body in config.documents())
        return cls.empty(region).with_changes(documents)

    def with_changes(self, changes: Iterable[Change]) -> "RuleIndex":
        """The index after ``changes``. Raises ``InvalidConfigError`` that names the document and what is wrong."""
        sections: dict[str, dict[str, msgspec.Struct]] = {}
        clients, keys = _Edits[str, Principal](), _Edits[bytes, KeyEntry]()
        blocks = None if self.blocks is None else dict(self.blocks.documents)
        for change in changes:
            document = decode_document(change)
            if change.kind == "client":
                clients.note(change.id, _principal(document) if isinstance(document, Client) else None)
            elif change.kind == "key":
                keys.note(_key_hash(change.id), _key_entry(document) if isinstance(document, ApiKey) else None)
            elif change.kind == "block":
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
        # Clients and keys change all day: then the rulebook stays, its cache included.
        book = Rulebook(self.book.region, {**self.book.sections, **sections}) if sections else self.book
        changed = blocks is not None and (self.blocks is None or blocks != self.blocks.documents)
        return RuleIndex(
            book,
            clients.applied_to(self.clients),
            keys.applied_to(self.keys),
            (Blocks(blocks) if blocks else None) if changed else self.blocks,
        )

    def without_ended(self, now_s: float) -> "RuleIndex":
        """Without switches whose time is over at ``now_s`` (epoch seconds): itself, where there are none."""
        book = self.book.without_ended(now_s)
        return self if book is self.book else RuleIndex(book, self.clients, self.keys, self.blocks)


def decode_document(change: Change) -> msgspec.Struct | None:
    """The typed document of a change, checked; ``None`` when it is gone or of a kind we do not know."""
    kind = DOCUMENT_TYPES.get(change.kind)
    if kind is None or change.body is None:
        return None
    try:
        document = msgspec.json.decode(change.body, type=kind)
    except msgspec.DecodeError as error:
        raise InvalidConfigError(f"{change.kind} {change.id!r}: {error}") from error
    for rule in _rules(document):
        for field, message in violations(rule):
            raise InvalidConfigError(f"{change.kind} {change.id!r}: limit {rule.name!r}: {field}: {message}")
    for field, message in block_violations(document) if isinstance(document, Block) else ():
        raise InvalidConfigError(f"{change.kind} {change.id!r}: {field}: {message}")
    for field, message in _load_violations(document):
        raise InvalidConfigError(f"{change.kind} {change.id!r}: {field}: {message}")
    return document


class _Edits(Generic[K, V]):
    """What to put and what to remove, the last word on each key winning."""

    def __init__(self) -> None:
        self._values: dict[K, V | None] = {}

    def note(self, key: K, value: V | None) -> None:
        self._values[key] = value

    def applied_to(self, entries: ShardedMap[K, V]) -> ShardedMap[K, V]:
        put = {key: value for key, value in self._values.items() if value is not None}
        gone = [key for key, value in self._values.items() if value is None]
        return entries.with_changes(put, gone) if self._values else entries


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
        plain=client.status == "active" and not client.attributes and not client.overrides,
    )


def _key_hash(id: str) -> bytes:
    try:
        return bytes.fromhex(id)
    except ValueError:
        raise InvalidConfigError(f"key {id[:8]!r}...: the id is not a hex SHA-256") from None


def _key_entry(key: ApiKey) -> KeyEntry:
    return KeyEntry(key.client, key.key_id, key.expires_at)
