"""HAProxy from Debian's packages, asking a node by a Lua action."""

from pathlib import Path

from testing.gateway import GatewayServer, debian_program


class HaproxyServer(GatewayServer):
    """docs/gateways/haproxy/."""

    name = "haproxy"
    dialect = "haproxy"

    def command(self) -> list[str | Path]:
        program = debian_program("haproxy")
        self.example("tidegate.lua")
        return [program, "-db", "-f", self.example("haproxy.cfg")]
