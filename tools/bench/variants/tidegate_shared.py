"""The same node with a peer in another region, which it tells what it counts: every limit is shared with it."""

import contextlib
from collections.abc import Iterator

from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.local import is_ready
from tidegate.stack.ports import LOOPBACK
from tidegate.stack.store import valkey_binary
from tools.bench.machine import bound_to, favour
from tools.bench.peered import PEER, credential_of
from tools.bench.place import READY_TIMEOUT_S, Place, running_store
from tools.bench.variant import Launch, Variant, python_module
from tools.bench.variants.node_settings import node_env


def _env(place: Place, port: int) -> dict[str, str]:
    peered = place.peered
    return node_env(place, port) | {
        "TIDEGATE_SNAPSHOT_FILE": str(peered.snapshot),
        "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": peered.public_key,
    }


def _launch(place: Place, _port: int) -> Launch:
    port = place.peered.port
    return Launch([*python_module("tidegate"), "data-plane"], port, _env(place, port))


@contextlib.contextmanager
def _agents(place: Place) -> Iterator[None]:
    """The region's agent, and the other region's with a Valkey of its own, on the core that makes the load."""
    peered = place.peered
    with running_store(place.directory / "peer-valkey", place.cores.load, "peer's Valkey", valkey_binary()) as store:
        of_peer = {
            "TIDEGATE_REGION": PEER,
            "TIDEGATE_REGION_CREDENTIAL": credential_of(PEER),
            "TIDEGATE_REDIS_URL": store.url,
        }
        with _agent(place, "agent", peered.agent_port, {}), _agent(place, "peer", peered.peer_port, of_peer):
            yield


@contextlib.contextmanager
def _agent(place: Place, name: str, port: int, settings: dict[str, str]) -> Iterator[None]:
    env = _env(place, port) | {"TIDEGATE_NODE": name} | settings
    command = [*python_module("tidegate"), "region-agent"]
    child = Child(name, command, env=env, log_path=place.directory / f"{name}.log")
    with bound_to(place.cores.load):
        child.start()
        favour(child.pid)
    try:
        wait_until_ready(child, lambda: is_ready(f"http://{LOOPBACK}:{port}"), timeout_s=READY_TIMEOUT_S)
        yield
    finally:
        child.stop()


VARIANT = Variant(
    "lane-shared", "Tidegate, decision lane, its limit shared with a region that is told every count", _launch,
    path="/v1/check", is_tidegate=True, beside=_agents,
)  # fmt: skip
