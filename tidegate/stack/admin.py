"""The admin API as the local stack uses it: by HTTP, like any other administrator."""

from typing import Any
from urllib.parse import quote

import httpx

from tidegate.stack.progress import StackError

TIMEOUT_S = 15.0
WAIT_FOR_NODES = {"Prefer": "wait=5"}


class AdminApi:
    """Calls the control plane at ``url`` with an admin token; a refusal is a ``StackError`` with its words."""

    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=TIMEOUT_S, trust_env=False
        )

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def put(self, path: str, body: dict[str, Any], *, wait: bool = False) -> dict[str, Any]:
        """PUT (make or replace). With ``wait`` until every connected node enforces it, 5 s at most."""
        return self._send("PUT", path, body, wait=wait)

    def post(self, path: str, body: dict[str, Any], *, wait: bool = False) -> dict[str, Any]:
        """POST (make)."""
        return self._send("POST", path, body, wait=wait)

    def get(self, path: str) -> dict[str, Any]:
        """GET."""
        return self._send("GET", path, None, wait=False)

    def has_key(self, client: str, secret: str) -> bool:
        """Whether the client already has this key."""
        listed = self.get(f"/v1/keys?prefix={quote(secret[:12])}")
        return any(key.get("client") == client for key in listed.get("items", []))

    def _send(self, method: str, path: str, body: dict[str, Any] | None, *, wait: bool) -> dict[str, Any]:
        try:
            response = self._client.request(method, path, json=body, headers=WAIT_FOR_NODES if wait else {})
        except httpx.HTTPError as error:
            raise StackError(f"the control plane did not answer {method} {path}: {error!r}") from error
        if response.is_error:
            raise StackError(f"the control plane refused {method} {path} ({response.status_code}): {response.text}")
        answer: dict[str, Any] = response.json() if response.content else {}
        return answer
