"""Documents of the contract: natural ids, canonical JSON, the signature over all, and what a revision may show."""

import functools
from typing import Any, NamedTuple

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tidegate.contract.blocks import Block, Switch
from tidegate.contract.config import ApiKey, Client, Document, Endpoint, Gateway, Kind, Plan, Region, signed_head
from tidegate.contract.digest import bucket_of, document_hash
from tidegate.contract.limits import LimitRule
from tidegate.contract.load import AdaptivePolicy, Backend, Reporter

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
    Switch: ("enforcement", "target"),
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
