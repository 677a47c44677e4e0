"""Nodes follow: snapshots, deltas, ACKs, and the wait for them."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.integration.control_plane.running import RunningControlPlane

HOURLY = {"name": "hourly", "limit": 1000, "window_s": 3600}


async def test_snapshot_then_deltas_reproduce_the_signed_digest(
    served: RunningControlPlane, signing_key: Ed25519PrivateKey
) -> None:
    await served.admin.put("/v1/plans/free", json={"limits": [HOURLY]})
    node = served.node()
    node.public_key = signing_key.public_key()
    async with node.following():
        assert [begin.base for begin in node.begun] == [None]
        await served.admin.put("/v1/clients/acme", json={"plan": "free"})
        made = await served.admin.post("/v1/clients/acme/keys", json={})
        await node.until(int(made.headers["x-tidegate-revision"]))
        removed = await served.admin.delete(f"/v1/clients/acme/keys/{made.json()['key_id']}")
        await node.until(int(removed.headers["x-tidegate-revision"]))
        assert {kind for kind, _ in node.documents} == {"region", "plan", "client"}
        assert node.computed_digest() == node.digest
        assert all(begin.base is not None for begin in node.begun[1:])
