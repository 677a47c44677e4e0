"""Applies revisions from the stream: collects documents, verifies them, swaps the index, answers with an ACK."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from data_plane.config.config_set import ConfigSet
from data_plane.config.index import InvalidConfigError, RuleIndex
from tidegate.contract.config import (
    Ack,
    Begin,
    Change,
    Commit,
    Documents,
    Heartbeat,
    HeldBack,
    StreamMessage,
    signed_head,
)

MAX_DOCUMENTS = 5_000_000


class Snapshot(NamedTuple):
    """A configuration with the control plane's signature over revision and digest.

    ``held_back`` is what a canary keeps from it; it is not signed, and only status reports use it.
    """

    revision: int
    signature: str
    config: ConfigSet
    held_back: HeldBack | None = None

    @property
    def whole_revision(self) -> int:
        """The newest revision that this configuration contains as a whole."""
        return self.revision if self.held_back is None else self.held_back.whole


class OutOfStepError(Exception):
    """A message does not follow the configuration in force: connect again and ask for everything."""


class ConfigService:
    """Holds the configuration in force. ``on_applied`` receives every new index with its snapshot, in order."""

    def __init__(
        self, node: str, region: str, public_key: Ed25519PublicKey, on_applied: Callable[[RuleIndex, Snapshot], None]
    ) -> None:
        self._node = node
        self._public_key = public_key
        self._on_applied = on_applied
        self._index = RuleIndex.empty(region)
        self._snapshot = Snapshot(0, "", ConfigSet.empty())
        self._begun: Begin | None = None
        self._changes: list[Change] = []
        self.refused: Ack | None = None
        """The last refused revision, until another one is applied."""
        self.refusals = 0
        """Revisions refused since the start."""
        self.wanted_revision = 0
        """The revision that the control plane last named for this node."""

    @property
    def revision(self) -> int:
        """The revision in force; 0 before the first."""
        return self._snapshot.revision

    @property
    def held_back(self) -> HeldBack | None:
        """What a canary keeps from this node; ``None`` without a canary, and in its stage."""
        return self._snapshot.held_back

    @property
    def whole_revision(self) -> int:
        """The newest revision that is in force as a whole; decisions report it."""
        return self._snapshot.whole_revision

    @property
    def digest(self) -> str:
        """The digest of the configuration in force."""
        return self._snapshot.config.digest

    def restore(self, snapshot: Snapshot) -> None:
        """Put a stored snapshot in force. Raises ``InvalidConfigError`` if its signature is wrong."""
        self._verify(snapshot.revision, snapshot.config.digest, snapshot.signature)
        self._apply(RuleIndex.of(self._index.book.region, snapshot.config), snapshot)

    def receive(self, message: StreamMessage) -> Ack | None:
        """Take one message of the stream. Returns an ACK for a commit, or a NACK with ``error`` set.

        Raises ``OutOfStepError`` if the stream must start again.
        """
        if isinstance(message, Begin | Heartbeat):
            self.wanted_revision = message.revision
        if isinstance(message, Begin):
            if message.base is not None and message.base != self.revision:
                raise OutOfStepError(f"a delta on revision {message.base}, but {self.revision} is in force")
            self._begun, self._changes = message, []
        elif isinstance(message, Documents):
            self._changes.extend(message.changes)
            if len(self._changes) > MAX_DOCUMENTS:
                raise OutOfStepError(f"more than {MAX_DOCUMENTS} documents")
        elif isinstance(message, Commit):
            return self._commit(message)
        elif isinstance(message, Heartbeat) and self._differs(message):
            raise OutOfStepError("the control plane has other content under this revision")
        return None

    def _differs(self, heartbeat: Heartbeat) -> bool:
        return heartbeat.revision == self.revision and heartbeat.digest != self.digest

    def _commit(self, commit: Commit) -> Ack:
        begun, changes = self._begun, self._changes
        self._begun, self._changes = None, []
        if begun is None or begun.revision != commit.revision:
            raise OutOfStepError("a commit without its beginning")
        try:
            self._follow(begun, changes, commit)
        except InvalidConfigError as error:
            self.refusals += 1
            self.refused = Ack(
                node=self._node, revision=commit.revision, digest=commit.digest, error=str(error)[:1_000]
            )
            return self.refused
        self.refused = None
        return Ack(node=self._node, revision=self.revision, digest=self.digest)

    def _follow(self, begun: Begin, changes: Iterable[Change], commit: Commit) -> None:
        whole = begun.base is None
        config = (ConfigSet.empty() if whole else self._snapshot.config).with_changes(changes)
        if config.digest != commit.digest:
            raise OutOfStepError(f"revision {commit.revision} does not have the digest that was announced")
        self._verify(commit.revision, commit.digest, commit.signature)
        index = RuleIndex.empty(self._index.book.region) if whole else self._index
        snapshot = Snapshot(commit.revision, commit.signature, config, begun.held_back)
        self._apply(index.with_changes(changes, config), snapshot)

    def _verify(self, revision: int, digest: str, signature: str) -> None:
        try:
            self._public_key.verify(bytes.fromhex(signature), signed_head(revision, digest))
        except (InvalidSignature, ValueError):
            raise InvalidConfigError(f"revision {revision} is not signed by our control plane") from None

    def _apply(self, index: RuleIndex, snapshot: Snapshot) -> None:
        self._index, self._snapshot = index, snapshot
        self._on_applied(index, snapshot)
