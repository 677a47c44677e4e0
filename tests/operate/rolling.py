"""Three nodes of a region behind HAProxy (HTTP) and Envoy (gRPC), which learn by ``/readyz`` whom to ask no more."""

import json
import shutil
import signal
from pathlib import Path

import httpx
import pytest

from testing.envoy import envoy_command
from testing.forked import ForkedChild
from testing.node import NOWHERE, PUBLIC_KEY, REGION_CREDENTIAL
from tidegate.stack.child import Child, wait_until_ready
from tidegate.stack.ports import LOOPBACK, free_ports

NODES = 3
DRAIN_S = 3
START_TIMEOUT_S = 60
HAPROXY = """
global
    maxconn 1000
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 5s
    # nothing is asked twice: a failure would be seen
    retries 0
    # a node that is slow to answer a check on a busy machine is not gone
    timeout check 2s
    default-server check inter 300ms fall 2 rise 1
frontend nodes
    bind 127.0.0.1:{port}
    default_backend region
frontend statistics
    bind 127.0.0.1:{stats_port}
    stats enable
    stats uri /
backend region
    balance roundrobin
    http-reuse always
    option httpchk GET /readyz
    http-check expect status 200
{servers}
"""


class Region:
    """Nodes behind load balancers: HTTP at ``port``, gRPC at ``grpc_port``."""

    def __init__(self, directory: Path, redis_url: str) -> None:
        program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        if program is None:
            pytest.skip("haproxy is not installed")
        self.port, self._stats_port, self.grpc_port, self._admin_port, *others = free_ports(4 + 3 * NODES)
        self._http, self._rls, self._health = others[:NODES], others[NODES : 2 * NODES], others[2 * NODES :]
        self._directory = directory
        self._redis_url = redis_url
        self.nodes: list[Child] = []
        servers = "\n".join(
            f"    server n{at + 1} 127.0.0.1:{self._http[at]} port {self._health[at]}" for at in range(NODES)
        )
        config = directory / "haproxy.cfg"
        config.write_text(HAPROXY.format(port=self.port, stats_port=self._stats_port, servers=servers))
        bootstrap = directory / "envoy.json"
        bootstrap.write_text(json.dumps(self._envoy()))
        self.balancers = [
            Child("HAProxy", [program, "-db", "-f", config], log_path=directory / "haproxy.log"),
            Child("Envoy", envoy_command(bootstrap), log_path=directory / "envoy.log"),
        ]

    def start(self) -> None:
        """All nodes, then the balancers, until they send requests to all."""
        self.nodes = [self.start_node(at) for at in range(NODES)]
        for balancer in self.balancers:
            balancer.start()
        wait_until_ready(self.balancers[-1], self.all_serve, timeout_s=START_TIMEOUT_S)

    def start_node(self, at: int) -> Child:
        """Node ``at``, on its ports."""
        name = f"n{at + 1}"
        env = {
            "TIDEGATE_NODE": name, "TIDEGATE_REGION": "us-east", "TIDEGATE_PORT": str(self._http[at]),
            "TIDEGATE_RLS_PORT": str(self._rls[at]), "TIDEGATE_HEALTH_PORT": str(self._health[at]),
            "TIDEGATE_TRUST": "network", "TIDEGATE_REDIS_URL": self._redis_url, "TIDEGATE_REDIS_DEADLINE_MS": "2000",
            "TIDEGATE_CONTROL_PLANE_URL": NOWHERE, "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": PUBLIC_KEY,
            "TIDEGATE_REGION_CREDENTIAL": REGION_CREDENTIAL, "TIDEGATE_DRAIN_S": str(DRAIN_S),
            "TIDEGATE_SNAPSHOT_FILE": str(self._directory / f"snapshot-{name}"),
        }  # fmt: skip
        log_path = self._directory / f"{name}.log"
        node = ForkedChild(f"node {name}", "data-plane", log_path=log_path, env=env)
        node.start()
        return node

    def all_serve(self) -> bool:
        """Whether both balancers send requests to every node."""
        try:
            lines = httpx.get(f"http://127.0.0.1:{self._stats_port}/;csv", trust_env=False).text.splitlines()
            hosts = httpx.get(f"http://127.0.0.1:{self._admin_port}/clusters?format=json", trust_env=False).json()
        except httpx.HTTPError:
            return False
        rows = [dict(zip(lines[0].lstrip("# ").split(","), line.split(","), strict=False)) for line in lines[1:]]
        up = sum(row.get("pxname") == "region" and row["svname"] != "BACKEND" and row["status"] == "UP" for row in rows)
        statuses = hosts["cluster_statuses"][0].get("host_statuses", [])
        healthy = sum(host["health_status"] == {"eds_health_status": "HEALTHY"} for host in statuses)
        return up == healthy == NODES

    def restart_each(self) -> None:
        """One node after the other: stop it as Kubernetes does, start it again, wait until it serves."""
        for at, node in enumerate(self.nodes):
            node.stop(timeout_s=20)
            assert node.exit_code() in {0, -signal.SIGTERM}
            again = self.nodes[at] = self.start_node(at)
            wait_until_ready(again, self.all_serve, timeout_s=START_TIMEOUT_S)

    def stop(self) -> None:
        """Everything."""
        for child in (*self.balancers, *self.nodes):
            child.stop(timeout_s=20)

    def _envoy(self) -> dict[str, object]:
        """A listener that hands each gRPC request to a node; nothing is asked twice."""
        http2 = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
        check = {
            "timeout": "2s", "interval": "0.3s", "no_traffic_interval": "0.3s", "unhealthy_threshold": 2,
            "healthy_threshold": 1, "http_health_check": {"path": "/readyz"},
        }  # fmt: skip
        endpoints = [
            {"endpoint": {"address": _address(rls), "health_check_config": {"port_value": health}}}
            for rls, health in zip(self._rls, self._health, strict=True)
        ]
        nodes = {
            "name": "nodes", "type": "STATIC", "connect_timeout": "2s", "lb_policy": "ROUND_ROBIN",
            # with too few healthy hosts Envoy would ask them all
            "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
            "typed_extension_protocol_options": http2, "health_checks": [check],
            "load_assignment": {"cluster_name": "nodes", "endpoints": [{"lb_endpoints": endpoints}]},
        }  # fmt: skip
        manager = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
                     ".HttpConnectionManager",
            "stat_prefix": "nodes", "codec_type": "HTTP2",
            "route_config": {"virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "nodes"}}]}
            ]},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
        }  # fmt: skip
        chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        listener = {"name": "nodes", "address": _address(self.grpc_port), "filter_chains": [chain]}
        return {
            "admin": {"address": _address(self._admin_port)},
            "static_resources": {"listeners": [listener], "clusters": [nodes]},
        }


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}
