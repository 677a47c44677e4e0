"""The configuration as it travels: a set of documents, each named by kind and id, under one revision.

A snapshot is every document; a delta is those that changed after a revision, with ``body`` ``None`` for what is gone.
Both cross the stream as ``Begin``, any number of ``Documents``, ``Commit``. Receivers ignore members they do not know.

Its digest is a two-level Merkle tree with a fixed fan-out: the same documents have the same one, in whatever order they
came. So a changed document costs one bucket and the root, not a pass over 100,000. The control plane signs the digest,
and a node proves by it that it has what was signed.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from tidegate.contract.blocks import Block, EnforcementOverride
from tidegate.contract.decoding import NodeName
from tidegate.contract.limits import LimitRule
from tidegate.contract.load import AdaptivePolicy, Backend, Reporter

BUCKETS = 1024
EMPTY_BUCKET = b""
PARAMETER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]{0,63}\}")
"""A segment of a path template that stands for any."""
Kind = Literal[
    "region", "plan", "limit", "endpoint", "backend", "client", "key", "gateway", "adaptive_policy", "reporter",
    "block", "enforcement",
]  # fmt: skip
KINDS: tuple[Kind, ...] = (
    "region", "plan", "limit", "endpoint", "backend", "client", "key", "gateway", "adaptive_policy", "reporter",
    "block", "enforcement",
)  # fmt: skip


class Region(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A region; peers reach its nodes at ``peer_url`` and verify its messages with ``public_key`` (Ed25519, hex)."""

    region: str
    peer_url: str | None = None
    public_key: str | None = None
    public_keys: dict[str, float] = {}
    """Keys from before a rotation that its nodes may sign with too, each until an instant (epoch seconds)."""

    def keys_at(self, now_s: float) -> tuple[str, ...]:
        """Every key that verifies its messages at ``now_s``."""
        earlier = tuple(key for key, until in self.public_keys.items() if until > now_s)
        return earlier if self.public_key is None else (self.public_key, *earlier)


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tier: its limits in the order written (the first is the headline unless one is marked)."""

    plan: str
    priority: int = 0
    limits: tuple[LimitRule, ...] = ()


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A route of the route table: method and path template. ``cost`` multiplies the request's own."""

    endpoint: str
    method: str
    path: str
    backend: str | None = None
    cost: int = 1
    exempt: bool = False


def route_shape(method: str, template: str) -> str:
    """What two templates that match the same requests have in common: parameters without their names."""
    return f"{method} {PARAMETER.sub('{}', template)}"


class Override(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A client's own figures for one limit of its plan, until ``expires_at`` (epoch seconds) if given.

    ``then`` holds from ``expires_at`` on; where it is ``None`` the plan's figures do.
    """

    limit: int
    burst: int | None = None
    expires_at: float | None = None
    then: "Override | None" = None

    def at(self, now_s: float) -> "Override | None":
        """What holds at ``now_s`` (epoch seconds)."""
        return self if self.expires_at is None or self.expires_at > now_s else self.then


class Client(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who calls. ``generation`` rises with each reset and so abandons what was counted before."""

    client: str
    plan: str
    status: Literal["active", "suspended"] = "active"
    attributes: dict[str, str] = {}
    overrides: dict[str, Override] = {}
    generation: int = 0


class ApiKey(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A client's key: only its SHA-256 (hex) travels and rests. ``expires_at`` is epoch seconds."""

    sha256: str
    key_id: str
    client: str
    expires_at: float | None = None


class Gateway(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A gateway's token (SHA-256, hex) and the header dialect it speaks."""

    sha256: str
    gateway: str
    dialect: str | None = None
    expires_at: float | None = None


Document = (
    Region
    | Plan
    | LimitRule
    | Endpoint
    | Backend
    | Client
    | ApiKey
    | Gateway
    | AdaptivePolicy
    | Reporter
    | Block
    | EnforcementOverride
)
DOCUMENT_TYPES: dict[str, type[msgspec.Struct]] = {
    "region": Region,
    "plan": Plan,
    "limit": LimitRule,
    "endpoint": Endpoint,
    "backend": Backend,
    "client": Client,
    "key": ApiKey,
    "gateway": Gateway,
    "adaptive_policy": AdaptivePolicy,
    "reporter": Reporter,
    "block": Block,
    "enforcement": EnforcementOverride,
}
"""The type of each kind's body. A document's id is its natural name (a key's: its ``sha256``; a limit's: ``name``)."""


if TYPE_CHECKING:
    Body = msgspec.Raw | None
else:
    # msgspec does not see Raw inside a union, and would accept nothing but null
    Body = msgspec.Raw


class Change(msgspec.Struct, frozen=True, array_like=True):
    """One document as it is now: canonical JSON (``msgspec.json.encode(body, order="sorted")``), or gone."""

    kind: str
    """One of ``KINDS``; receivers carry kinds of a newer version without reading them."""
    id: str
    body: Body

    def __post_init__(self) -> None:
        """A document that is gone crosses the wire as null."""
        if self.body is not None and bytes(self.body) == b"null":
            msgspec.structs.force_setattr(self, "body", None)


class HeldBack(msgspec.Struct, frozen=True, kw_only=True):
    """What a node outside the stage of a roll-out lacks: the changes of revision ``rollout``. The newest revision that
    it decides by as a whole is ``whole``.
    """

    rollout: int
    whole: int


class Begin(msgspec.Struct, frozen=True, kw_only=True, tag="begin", omit_defaults=True):
    """Opens a snapshot (``base`` ``None``) or a delta on top of revision ``base``."""

    base: int | None
    revision: int
    held_back: HeldBack | None = None


class Documents(msgspec.Struct, frozen=True, kw_only=True, tag="documents"):
    """A part of what was begun, at most 1,000 documents."""

    changes: tuple[Change, ...]


class Commit(msgspec.Struct, frozen=True, kw_only=True, tag="commit"):
    """Ends it: apply all at once. ``signature`` (Ed25519, hex) is over ``signed_head(revision, digest)``."""

    revision: int
    digest: str
    signature: str


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag="heartbeat"):
    """Sent every few seconds: what a node that missed nothing has. A node that differs asks again from nothing."""

    revision: int
    digest: str


StreamMessage = Begin | Documents | Commit | Heartbeat


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


def signed_head(revision: int, digest: str) -> bytes:
    """The bytes that the control plane signs: they bind the content to its revision."""
    return f"tidegate config {revision} {digest}".encode()


RuleId = Annotated[int, msgspec.Meta(ge=1, lt=10**18)]
InstantUs = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_RULE_IDS = {"propertyNames": {"pattern": "^[1-9][0-9]{0,17}$"}}
Effects = Annotated[dict[RuleId, InstantUs], msgspec.Meta(max_length=10_000, extra_json_schema=_RULE_IDS)]


class Ack(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node's answer to a revision: applied and enforced, or refused with a reason (``error``)."""

    node: NodeName
    revision: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    digest: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
    error: str | None = None
    effective: Effects = {}
    """For ``strict`` limits whose steps changed with this revision, by rule ``id``: the instant (microseconds) from
    which on no window of this region can have been used under the older steps, whichever of its nodes decides.

    A limit that is absent here while its cut is awaited is not safe yet: the node could not reach its store, and says
    the same revision again with it once it could.
    """
