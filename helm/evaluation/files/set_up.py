# noqa: INP001 - a script of the chart, not a module of ours
"""Tell the control plane of an evaluation its regions and a client; keep what it makes in secrets of the cluster."""

import base64
import os
import sys
import time
from pathlib import Path
from typing import Any

import httpx

CONTROL_PLANE = "http://tidegate-control-plane:8000"
REGIONS = {"us-east": "http://tidegate-us-east-agent:8201", "eu-west": "http://tidegate-eu-west-agent:8201"}
LIMITS = [{"name": "per-minute", "scope": "client", "limit": 10, "window_s": 60}]
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
WAIT_S = 240


class Secrets:
    """Secrets of the namespace that are there already, with nothing in them yet."""

    def __init__(self, namespace: str) -> None:
        token = (ACCOUNT / "token").read_text()
        self._api = httpx.Client(
            base_url=f"https://kubernetes.default.svc/api/v1/namespaces/{namespace}/secrets",
            verify=str(ACCOUNT / "ca.crt"),
            headers={"Authorization": f"Bearer {token}"},
        )

    def get(self, name: str, key: str) -> str | None:
        """What the secret holds under the key; none where it holds nothing yet."""
        data = self._api.get(f"/{name}").raise_for_status().json().get("data") or {}
        return base64.b64decode(data[key]).decode() if key in data else None

    def put(self, name: str, key: str, value: str) -> None:
        """Keep a value; pods that wait for it start."""
        kind = {"Content-Type": "application/merge-patch+json"}
        self._api.patch(f"/{name}", json={"stringData": {key: value}}, headers=kind).raise_for_status()


def until_ready(api: httpx.Client) -> None:
    """Wait for the control plane, which waits for its database."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            api.get("/readyz").raise_for_status()
        except httpx.HTTPError:
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return


def main(namespace: str) -> None:
    """Run again it changes nothing: credentials and the key that are in the secrets stay."""
    secrets = Secrets(namespace)
    with httpx.Client(base_url=CONTROL_PLANE, headers={"Authorization": f"Bearer {os.environ['ADMIN_TOKEN']}"}) as api:
        until_ready(api)

        def put(path: str, body: dict[str, Any]) -> None:
            api.put(path, json=body).raise_for_status()

        for region, peer_url in REGIONS.items():
            name = f"tidegate-{region}-credential"
            known = secrets.get(name, "credential")
            put(f"/v1/regions/{region}", {"peer_url": peer_url} | ({"credential": known} if known else {}))
            if known is None:
                made = api.post(f"/v1/regions/{region}/credentials").raise_for_status().json()
                secrets.put(name, "credential", made["credential"])
        put("/v1/plans/demo", {"limits": LIMITS})
        put("/v1/clients/demo", {"plan": "demo"})
        if secrets.get("tidegate-demo-key", "api-key") is None:
            made = api.post("/v1/clients/demo/keys", json={}).raise_for_status().json()
            secrets.put("tidegate-demo-key", "api-key", made["secret"])


if __name__ == "__main__":
    main(sys.argv[1])
