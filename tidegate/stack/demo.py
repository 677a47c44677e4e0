"""What `tidegate up --demo` sets up, and the requests it suggests."""

from typing import Any

from tidegate.stack.admin import AdminApi
from tidegate.stack.keyring import Keyring
from tidegate.stack.layout import NodePlace

HOUR_S = 3600
BACKENDS = ("users", "reports")
ENDPOINTS: dict[str, dict[str, Any]] = {
    "get-user": {"method": "GET", "path": "/api/users/{id}", "backend": "users"},
    "export": {"method": "POST", "path": "/api/exports", "backend": "reports", "cost": 20},
    "health": {"method": "GET", "path": "/healthz", "exempt": True},
}
PLANS: dict[str, dict[str, Any]] = {
    "anonymous": {"limits": [{"name": "per-ip", "scope": "ip", "limit": 60, "window_s": 60}]},
    "free": {
        "priority": 10,
        "limits": [
            {"name": "hourly", "scope": "client", "algorithm": "sliding_window", "limit": 1000, "window_s": HOUR_S}
        ],
    },
    "pro": {
        "priority": 50,
        "limits": [
            {"name": "hourly", "scope": "client", "algorithm": "sliding_window", "limit": 10_000, "window_s": HOUR_S},
            {"name": "burst", "scope": "client", "algorithm": "token_bucket", "limit": 50, "window_s": 1, "burst": 100},
        ],
    },
}
CLIENTS = {"acme": "free", "globex": "pro"}


def set_up_demo(admin: AdminApi, keyring: Keyring) -> None:
    """Make (or make again) the demo's documents; every node enforces them when this returns."""
    for backend in BACKENDS:
        admin.put(f"/v1/backends/{backend}", {})
    for endpoint, route in ENDPOINTS.items():
        admin.put(f"/v1/endpoints/{endpoint}", route)
    for plan, rules in PLANS.items():
        admin.put(f"/v1/plans/{plan}", rules)
    for client, plan in CLIENTS.items():
        admin.put(f"/v1/clients/{client}", {"plan": plan}, wait=True)
        if not admin.has_key(client, keyring.demo_keys[client]):
            admin.post(f"/v1/clients/{client}/keys", {"secret": keyring.demo_keys[client], "name": "demo"}, wait=True)


def suggestions(keyring: Keyring, nodes: list[NodePlace], control_plane_url: str, admin_token_file: str) -> list[str]:
    """Commands to copy, with real keys: each works as it stands."""
    here, there = nodes[0], nodes[1 % len(nodes)]
    acme, globex = keyring.demo_keys["acme"], keyring.demo_keys["globex"]
    body = f'{{"api_key": "{acme}", "method": "GET", "path": "/api/users/123"}}'
    return [
        "",
        f"# ask {here.region} whether acme (plan free, 1000 an hour in all regions together) may pass",
        f"curl -i {here.url}/v1/check -d '{body}'",
        f"# as a gateway asks (forward-auth), for globex (plan pro, 10000 an hour, bursts of 100), in {there.region}",
        f"curl -i {there.url}/v1/authorize/api/users/123 -H 'X-API-Key: {globex}'",
        "# without a key: 60 a minute for each address",
        f"""curl -i {here.url}/v1/check -d '{{"ip": "203.0.113.42", "method": "GET", "path": "/api/users/123"}}'""",
        "# as an administrator",
        f'curl {control_plane_url}/v1/plans -H "Authorization: Bearer $(cat {admin_token_file})"',
        "",
    ]
