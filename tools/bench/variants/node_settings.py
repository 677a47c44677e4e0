"""What a node under test finds in its environment: its config from a snapshot, the control plane away."""

from tidegate.stack.ports import LOOPBACK
from tools.bench.peered import credential_of
from tools.bench.place import Place
from tools.bench.workload import REGION

NOWHERE = f"http://{LOOPBACK}:9"  # the discard port: refused at once, and tried again every few seconds


def node_env(place: Place, port: int) -> dict[str, str]:
    """The settings of a node on ``port``; everything else is left at its default."""
    return {
        "TIDEGATE_NODE": f"{REGION}-1",
        "TIDEGATE_REGION": REGION,
        "TIDEGATE_HOST": LOOPBACK,
        "TIDEGATE_PORT": str(port),
        "TIDEGATE_LOG_LEVEL": "error",
        "TIDEGATE_REDIS_URL": place.store.url,
        "TIDEGATE_CONTROL_PLANE_URL": NOWHERE,
        "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": place.public_key,
        "TIDEGATE_REGION_CREDENTIAL": credential_of(REGION),
        "TIDEGATE_SNAPSHOT_FILE": str(place.snapshot),
        "TIDEGATE_DRAIN_S": "0",
        "TIDEGATE_TRUST": "network",
        "TIDEGATE_DIALECT": "envoy",
    }
