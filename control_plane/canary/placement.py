"""Revisions that not every node has yet: two views of one configuration.

While a roll-out is under way, nodes of its stage get the head, and all others the stable view: the head, but with each
held-back document as it was before. A change of other documents (a key, a block, a reset) is in both views at once,
under one revision number with a digest for each view. There is one roll-out at a time. A change of what it holds back
is refused until it is over.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgspec
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from control_plane.canary import repository as rollouts
from control_plane.canary.models import RolloutRow
from control_plane.errors import ConflictError
from control_plane.nodes import repository as nodes
from control_plane.nodes.repository import ConnectedNode
from control_plane.publishing import repository
from control_plane.publishing.models import STAGED_KINDS, ConfigHead, RolloutPolicy
from control_plane.publishing.repository import ChangedDocument, DocumentKey
from tidegate.contract.config import Endpoint, Kind, bucket_digest, document_hash, root_digest, route_shape

Held = dict[DocumentKey, str | None]
"""Held-back documents, each as it was before the roll-out (``None``: it did not exist)."""


def held_by(rollout: RolloutRow) -> Held:
    """What a roll-out holds back."""
    return {DocumentKey(cast("Kind", item["kind"]), item["id"]): item["before"] for item in rollout.held}


def to_hold(changes: Iterable[ChangedDocument]) -> list[dict[str, Any]]:
    """What a roll-out of these changes holds back, as its row keeps it: bodies are canonical JSON, byte for byte."""
    return [{"kind": change.key.kind, "id": change.key.id, "before": change.before} for change in changes]


def refuse_conflicts(rollout: RolloutRow, changes: Sequence[ChangedDocument], *, immediate: bool) -> None:
    """Raise :class:`ConflictError` for changes that cannot be in both views while ``rollout`` is under way, or that
    would keep it from being rolled back.
    """
    held = held_by(rollout)
    new = {key for key, before in held.items() if before is None}
    needed = {name for key, before in held.items() for name in _named_by(key.kind, before)}
    routes = {_route(before) for key, before in held.items() if key.kind == "endpoint" and before is not None}
    wait = f"Wait until it is over, or POST /v1/rollouts/{rollout.number}/release or .../rollback."
    for change in changes:
        named = _named_by(change.key.kind, change.after) if new else set()
        back = [change.key] if change.key in held else sorted(new & named)
        if back:
            what = f"holds back the {_what(back[0])}."
        elif change.after is None and change.key in needed:
            what = f"is under way, and could not be rolled back without the {_what(change.key)}."
        elif change.key.kind == "endpoint" and change.after is not None and _route(change.after) in routes:
            what = f"is under way, and could not be rolled back if the {_what(change.key)} had this method and path."
        elif change.key.kind in STAGED_KINDS and not immediate:
            wait += " With `Prefer: rollout=immediate` the change goes everywhere at once."
            what = f"is under way, and the {_what(change.key)} would need one of its own."
        else:
            continue
        raise ConflictError(f"The roll-out of revision {rollout.number} {what} {wait}", rollout=str(rollout.number))


def _what(key: DocumentKey) -> str:
    return key.kind if key.kind == "key" else f"{key.kind} {key.id}"


def _route(body: str) -> str:
    """The shape of an endpoint's route: no two endpoints share it."""
    endpoint = msgspec.json.decode(body, type=Endpoint)
    return route_shape(endpoint.method, endpoint.path)


def _named_by(of: Kind, document: str | None) -> set[DocumentKey]:
    """What a document refers to; those references block taking it back."""
    body = {} if document is None else msgspec.json.decode(document)
    match of:
        case "client":
            named = {"plan": [body.get("plan")]}
        case "plan" | "limit":
            rules = body.get("limits", [body])
            named = {
                "endpoint": [name for rule in rules for name in rule.get("match", {}).get("endpoints", ())],
                "adaptive_policy": [rule.get("adaptive") for rule in rules],
                "region": [region for rule in rules for region in rule.get("shares", ())],
            }
        case "backend":
            named = {"adaptive_policy": [body.get("adaptive")]}
        case "endpoint":
            named = {"backend": [body.get("backend")]}
        case "reporter":
            named = {"backend": body.get("backends", [])}
        case _:
            named = {}
    return {DocumentKey(cast("Kind", kind), name) for kind, names in named.items() for name in names if name}


async def stable_digest(session: AsyncSession, held: Held) -> str:
    """The digest of the stable view, from the documents as they are in this session."""
    buckets: dict[int, dict[DocumentKey, bytes]] = {key.bucket: {} for key in held}
    for kind, id, hash, bucket in await repository.hashes_in(session, list(buckets)):
        buckets[bucket][DocumentKey(cast("Kind", kind), id)] = hash or b""
    for key, before in held.items():
        if before is None:
            buckets[key.bucket].pop(key, None)
        else:
            buckets[key.bucket][key] = document_hash(key.kind, key.id, before.encode())
    digests = await repository.bucket_digests(session)
    digests |= {bucket: bucket_digest(hashes.values()) for bucket, hashes in buckets.items()}
    return root_digest(digests)


class CanaryPlacement:
    """The placement of one write's revision by the policy of roll-outs; maintains the head's two views."""

    def __init__(self, session: AsyncSession, head: ConfigHead, *, heartbeat_s: float, immediate: bool) -> None:
        self._session = session
        self._head = head
        self._heartbeat_s = heartbeat_s
        self._immediate = immediate
        self._move: tuple[str, str] | None = None
        self._end: tuple[str, str] | None = None

    @property
    def has_step(self) -> bool:
        """Whether this write moves or ends a roll-out, and so needs a revision even if no document differs."""
        return self._move is not None or self._end is not None

    def move(self, region: str, node: str) -> None:
        """Make this node the stage from this revision on, or the whole region with an empty ``node``."""
        self._move = (region, node)

    def finish(self, state: str, outcome: str) -> None:
        """Give every node the head from this revision on; the roll-out is ``done`` or ``rolled_back``."""
        self._end = (state, outcome)

    async def handed_on(self) -> list[DocumentKey]:
        """Held-back documents that more nodes get with this write's revision, whatever they acknowledged."""
        row = await self._under_way() if self.has_step else None
        return [] if row is None else list(held_by(row))

    async def place(self, changes: Sequence[ChangedDocument], head: repository.Head) -> str | None:
        """Decide who gets ``head``, this write's revision, whose documents are stored: begin a roll-out, or move or
        end the one that is under way. Returns the digest of the stable view if it has this revision too.

        Raises :class:`ConflictError` for changes that must wait for the roll-out.
        """
        row = await self._under_way()
        if row is None:
            return await self._begin(changes, head)
        if not self.has_step:
            refuse_conflicts(row, changes, immediate=self._immediate)
            self._head.stable_revision = head.revision
            self._head.stable_digest = await stable_digest(self._session, held_by(row))
            return self._head.stable_digest
        await repository.restamp(self._session, held_by(row), head.revision)
        if self._end is not None:
            row.state, row.outcome = self._end
            row.ended_at, row.released_revision = func.now(), head.revision
            self._head.rollout = self._head.stable_revision = self._head.stable_digest = None
            self._head.stage_region = self._head.stage_node = None
        elif self._move is not None:
            row.region, row.node = self._move
            row.state = "node" if row.node else "region"
            row.stage_at, row.stage_revision, row.acked_at = func.now(), head.revision, None
            self._head.stage_region, self._head.stage_node = row.region, row.node or None
        return None

    async def _under_way(self) -> RolloutRow | None:
        number = self._head.rollout
        return None if number is None else await rollouts.rollout(self._session, number, with_held=True)

    async def _begin(self, changes: Sequence[ChangedDocument], head: repository.Head) -> str | None:
        policy = await rollouts.policy(self._session)
        first = _first(policy, nodes.deciding(await nodes.connected(self._session, self._heartbeat_s)))
        if first is None:
            return None  # no node is connected: there is nothing to try it on
        self._head.rollout = head.revision
        # the other nodes get the number too, as a store that knows it refuses strict limits with older shares
        self._head.stable_revision, self._head.stable_digest = head.revision, self._head.digest
        self._head.stage_region, self._head.stage_node = first.region, first.node
        self._session.add(
            RolloutRow(
                number=head.revision,
                state="node",
                region=first.region,
                node=first.node,
                base_revision=self._head.revision,
                stage_revision=head.revision,
                node_pause_s=policy.node_pause_s,
                region_pause_s=policy.region_pause_s,
                max_denial_rise=policy.max_denial_rise,
                max_degraded_rise=policy.max_degraded_rise,
                min_decisions=policy.min_decisions,
                held=to_hold(changes),
            )
        )
        return self._head.digest


def _first(policy: RolloutPolicy, connected: Sequence[ConnectedNode]) -> ConnectedNode | None:
    """The canary: the policy's node, else one of the region with the fewest nodes."""
    sizes = Counter(node.region for node in connected)

    def rank(node: ConnectedNode) -> tuple[bool, bool, int, str, str]:
        return (node.region != policy.region, node.node != policy.node, sizes[node.region], node.region, node.node)

    return min(connected, key=rank, default=None)
