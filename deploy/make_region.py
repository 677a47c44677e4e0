# noqa: INP001 - a script of the compose project, not a module of ours
"""Tell the control plane of the compose project about its region, or that nothing has changed."""

import os
import sys
from pathlib import Path

import httpx

CONTROL_PLANE = os.environ.get("CONTROL_PLANE_URL", "http://control-plane:8000")
ADMIN_TOKEN_FILE = Path(os.environ.get("ADMIN_TOKEN_FILE", "/secrets/admin-token"))


def main(region: str, peer_url: str) -> None:
    """PUT is an upsert: starting again changes nothing."""
    answer = httpx.put(
        f"{CONTROL_PLANE}/v1/regions/{region}",
        json={"peer_url": peer_url, "credential": os.environ["TIDEGATE_REGION_CREDENTIAL"]},
        headers={"Authorization": f"Bearer {ADMIN_TOKEN_FILE.read_text().strip()}"},
        timeout=10,
    )
    answer.raise_for_status()


if __name__ == "__main__":
    main(*sys.argv[1:])
