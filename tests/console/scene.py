"""An installation with something to see: plans, clients, blocks, a backend under load, tokens, and traffic."""

import random
import time
from collections.abc import Sequence
from typing import Any

import httpx

from tidegate.stack.layout import NodePlace

HOURLY: dict[str, Any] = {"scope": "client", "window_s": 3600}
PLANS: dict[str, dict[str, Any]] = {
    "free": {"priority": 10, "limits": [{"name": "hourly", "limit": 1000, **HOURLY}]},
    "pro": {
        "priority": 50,
        "limits": [
            {"name": "hourly", "limit": 10_000, **HOURLY},
            {"name": "burst", "scope": "client", "algorithm": "token_bucket", "limit": 50, "window_s": 1, "burst": 100},
            {"name": "hourly-try", "limit": 500, "shadow": True, **HOURLY},
        ],
    },
    "enterprise": {
        "priority": 80,
        "limits": [
            {"name": "monthly", "scope": "client", "limit": 5_000_000, "window": "month", "mode": "strict"},
            {"name": "per-minute", "scope": "client", "limit": 6000, "window_s": 60, "mode": "regional"},
        ],
    },
}
CLIENTS = {
    "acme": "free", "globex": "pro", "initech": "free", "umbrella": "pro", "hooli": "free", "wayne-enterprises": "pro",
    "stark-industries": "enterprise", "wonka": "free", "cyberdyne": "pro", "soylent": "free",
}  # fmt: skip
POLICY = {"signals": {"cpu": 1.0, "queue_delay_ms": 100.0}, "min_reporters": 1, "critical": 80, "target": 0.8}
ROLES = ("viewer", "operator", "admin")


class Scene:
    """Makes it by the admin API and keeps it busy. ``tokens``: a secret of each role."""

    def __init__(self, admin: httpx.Client, nodes: Sequence[NodePlace]) -> None:
        self._admin = admin
        self.nodes = nodes
        self.tokens: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        self._reporter = ""
        self._random = random.Random(7)

    def make(self) -> None:
        """All that an admin would."""
        self._put("/v1/adaptive-policies/protect", POLICY)
        self._put("/v1/backends/users", {"adaptive": "protect", "capacity": {"limit": 500, "window_s": 1}})
        self._put("/v1/backends/reports", {})
        self._put("/v1/endpoints/get-user", {"method": "GET", "path": "/api/users/{id}", "backend": "users"})
        self._put("/v1/endpoints/export", {"method": "POST", "path": "/api/exports", "backend": "reports", "cost": 5})
        self._put("/v1/plans/anonymous", {"limits": [{"name": "per-ip", "scope": "ip", "limit": 60, "window_s": 60}]})
        for plan, body in PLANS.items():
            self._put(f"/v1/plans/{plan}", body)
        for number, (client, plan) in enumerate(CLIENTS.items()):
            self._put(f"/v1/clients/{client}", {"plan": plan, "external_id": f"crm-{1000 + number}"}, "a new customer")
            self.keys[client] = self._post(f"/v1/clients/{client}/keys", {"name": "production"})["secret"]
        self._put(
            "/v1/blocks/scraper", {"ip": "198.51.100.0/24", "reason": "scrapes the catalogue", "reason_class": "abuse"}
        )
        self._post(
            "/v1/usage-webhooks", {"webhook": "billing", "url": "https://billing.example.com/tidegate", "plan": "pro"}
        )
        self._reporter = self._post("/v1/reporters", {"reporter": "users-1", "backends": ["users"]})["secret"]
        for role in ROLES:
            self.tokens[role] = self._post("/v1/tokens", {"name": f"{role}-of-the-day", "role": role})["secret"]
        self._put("/v1/clients/globex/overrides/hourly", {"limit": 25_000}, "agreed with sales, until the new contract")

    def busy(self, seconds: float, *, load: float = 0.5) -> None:
        """Requests of everybody at every node, and reports of a backend that is so loaded."""
        until = time.monotonic() + seconds
        names = [*CLIENTS, "acme", "acme", "acme", "globex", "globex"]
        with httpx.Client(trust_env=False) as client:
            while time.monotonic() < until:
                place = self._random.choice(self.nodes)
                checks = [self._check(names) for _ in range(self._random.randint(10, 40))]
                client.post(f"{place.url}/v1/check/batch", json={"checks": checks}).raise_for_status()
                for region in {one.region: one for one in self.nodes}.values():
                    self._report(client, region, load)
                time.sleep(0.2)

    def change_by_steps(self) -> None:
        """A change of a plan that is under way: one node has it."""
        slow = {"mode": "canary", "node_pause_s": 600, "region_pause_s": 600, "max_denial_rise": 1.0}
        self._put("/v1/rollouts/policy", slow)
        self._put("/v1/plans/free/limits/hourly", {"limit": 1200, **HOURLY}, "free customers ask for more")

    def ask(self, place: NodePlace, **check: Any) -> httpx.Response:
        """One decision of a node."""
        body = {"method": "GET", "path": "/api/users/1", **check}
        return httpx.post(f"{place.url}/v1/check", json=body, trust_env=False)

    def _check(self, names: Sequence[str]) -> dict[str, Any]:
        if self._random.random() < 0.1:
            return {"ip": f"203.0.113.{self._random.randint(1, 9)}", "method": "GET", "path": "/api/users/1"}
        path = self._random.choice(["/api/users/7", "/api/users/42", "/api/users/42", "/api/exports"])
        method = "POST" if path == "/api/exports" else "GET"
        name = self._random.choice(names)
        who = {"api_key": self.keys[name]} if self._random.random() < 0.5 else {"client": name}
        return {**who, "method": method, "path": path}

    def _report(self, client: httpx.Client, place: NodePlace, load: float) -> None:
        noise = self._random.uniform(0.9, 1.1)
        body = {"backend": "users", "cpu": min(1.0, load * noise), "queue_delay_ms": 100 * load * noise}
        headers = {"X-Tidegate-Token": self._reporter}
        client.post(f"{place.url}/v1/load", json=body, headers=headers).raise_for_status()

    def _put(self, path: str, body: dict[str, Any], reason: str = "") -> dict[str, Any]:
        return self._send("PUT", path, body, reason)

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._send("POST", path, body, "")

    def _send(self, method: str, path: str, body: dict[str, Any], reason: str) -> dict[str, Any]:
        headers = {"Prefer": "wait=5"} | ({"X-Tidegate-Reason": reason} if reason else {})
        response = self._admin.request(method, path, json=body, headers=headers)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        found: dict[str, Any] = response.json()
        return found
