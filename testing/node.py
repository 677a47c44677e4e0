"""A decision node inside the test's process, on a real store, with a configuration of the test's own."""

import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import httpx
import msgspec
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI

from data_plane.agent import Agent
from data_plane.config.index import ConfigSet, RuleIndex
from data_plane.config.snapshots import SnapshotFile
from data_plane.config.stream import Snapshot
from data_plane.http.decision_handler import DecisionFastPath
from data_plane.http.peer_handler import PeerFastPath
from data_plane.main import LIMITS, build_agent_app, build_app
from data_plane.node import Node
from data_plane.settings import AgentSettings, Settings
from testing.listening import listening
from tidegate.contract.blocks import Block
from tidegate.contract.config import ApiKey, Change, Client, Endpoint, Gateway, Plan, Region, signed_head
from tidegate.contract.credentials import make_credential, secret_sha256
from tidegate.contract.limits import LimitRule
from tidegate.contract.load import AdaptivePolicy, Backend, Reporter
from tidegate.http_front.exchange import FastPath
from tidegate.http_front.front import Front
from tidegate.http_front.serving import protocol_class

SIGNING_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = SIGNING_KEY.public_key().public_bytes_raw().hex()
REGION_CREDENTIAL = make_credential("region", bytes(range(32)))
GATEWAY_TOKEN = make_credential("gateway", bytes(range(1, 33)))
NOWHERE = "http://127.0.0.1:9"
"""A control plane that never answers: the node serves from its snapshot."""

PATIENT_MS = 1_000
"""A deadline that a store keeps on a machine with much else to do: what a slow one answers is for tests of that."""
HOUR_US = 3_600_000_000


def rule(id, name, limit, **members):
    """A limit of ``limit`` an hour, unless ``members`` say otherwise."""
    members.setdefault("mode", "regional")
    if members["mode"] != "shared":
        members.setdefault("shares", {"us-east": limit})
    if members["mode"] == "strict":
        members.setdefault("since_us", 2**52)  # younger than any store: nothing can have been forgotten
    if "calendar" not in members:
        members.setdefault("window_us", HOUR_US)
    return LimitRule(id=id, name=name, limit=limit, **members)


def document_of(value) -> Change:
    """A contract value as the document that carries it."""
    kinds = {
        Plan: "plan", Client: "client", Endpoint: "endpoint", Region: "region", LimitRule: "limit",
        Backend: "backend", Reporter: "reporter", Block: "block",
    }  # fmt: skip
    if isinstance(value, AdaptivePolicy):
        kind, id = "adaptive_policy", value.policy
    elif isinstance(value, ApiKey):
        kind, id = "key", value.sha256
    elif isinstance(value, Gateway):
        kind, id = "gateway", value.gateway
    elif isinstance(value, LimitRule):
        kind, id = "limit", value.name
    else:
        kind = kinds[type(value)]
        id = getattr(value, kind)
    return Change(kind, id, msgspec.Raw(msgspec.json.encode(value, order="sorted")))


def key_of(client: str, secret: str, **members) -> ApiKey:
    return ApiKey(sha256=secret_sha256(secret), key_id=f"{client}-key", client=client, **members)


async def write_snapshot(path: Path, values: Iterable, revision: int = 1) -> None:
    """What a node restores at start, signed as the control plane does."""
    config = ConfigSet.empty().with_changes([document_of(value) for value in values])
    signature = SIGNING_KEY.sign(signed_head(revision, config.digest)).hex()
    file = SnapshotFile(path)
    file.save_soon(Snapshot(revision, signature, config))
    await file.flush()


def put_in_force(node: Node, index: RuleIndex, revision: int) -> None:
    """Have a node decide under ``index``, as if a revision had come."""
    snapshot = Snapshot(revision, "", index.config)
    node.region_view.applied(index, snapshot)
    node.decider.applied(index, snapshot)


def settings_for(snapshot: Path, redis_url: str, **settings) -> Settings:
    return Settings(**{**_known(snapshot, redis_url), "node": "n1", "trust": "network", **settings})


def agent_settings_for(snapshot: Path, redis_url: str, **settings) -> AgentSettings:
    return AgentSettings(**{**_known(snapshot, redis_url), "node": "a1", **settings})


def _known(snapshot: Path, redis_url: str) -> dict:
    return {
        "region": "us-east", "port": 0, "redis_url": redis_url, "control_plane_url": NOWHERE,
        "control_plane_public_key": PUBLIC_KEY, "region_credential": REGION_CREDENTIAL, "snapshot_file": snapshot,
        "redis_deadline_ms": PATIENT_MS,
    }  # fmt: skip


@contextlib.asynccontextmanager
async def serving(process: Node | Agent, *, lane: bool = True, port: int = 0) -> AsyncIterator[str]:
    """A node's or an agent's base URL while it serves; a node through the fast path, or through FastAPI alone."""
    if isinstance(process, Node):
        app, fast_path = build_app(process), DecisionFastPath(process.handler)
    else:
        app, fast_path = build_agent_app(process), PeerFastPath(process.peer_handler)
    async with served(app, fast_path if lane else None, port) as url:
        yield url


@contextlib.asynccontextmanager
async def served(app: FastAPI, fast_path: FastPath | None, port: int = 0) -> AsyncIterator[str]:
    """The base URL of an application behind a front, or without a fast path behind uvicorn's own."""
    config = uvicorn.Config(
        app, port=port, http="httptools" if fast_path is None else protocol_class(Front(fast_path, LIMITS)), ws="none",
        lifespan="on", log_config=None, access_log=False, proxy_headers=False, timeout_graceful_shutdown=2,
    )  # fmt: skip
    async with listening(config) as url:
        yield url


@contextlib.asynccontextmanager
async def node_client(
    tmp_path: Path, redis_url: str, values: Iterable, *, lane: bool = True, revision: int = 1, **settings
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a node that enforces ``values``."""
    snapshot = tmp_path / "snapshot"
    await write_snapshot(snapshot, values, revision)
    node = Node(settings_for(snapshot, redis_url, **settings))
    async with serving(node, lane=lane) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        yield client
