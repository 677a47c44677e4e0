"""nginx from Debian's packages, asking a node by auth_request."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from testing.gateway import GatewayServer, debian_program


class NginxServer(GatewayServer):
    """docs/gateways/nginx/nginx.conf."""

    name = "nginx"
    dialect = "nginx"
    manners: ClassVar[Mapping[str, str]] = {
        "test_denied": "yes, by the 403-to-429 recipe",
        "test_two_keys": "yes: in two `X-API-Key` the first is counted, and only that one goes on",
    }

    def command(self) -> list[str | Path]:
        program = debian_program("nginx")
        config = self.example("nginx.conf")
        (self.directory / "temp").mkdir(exist_ok=True)
        # Debian's nginx opens /var/log/nginx/error.log before it reads its configuration, unless -e says otherwise.
        # Started by root its workers would be another user, whom pytest's directories are closed to.
        user = " user root;" if os.geteuid() == 0 else ""
        return [program, "-p", self.directory, "-c", config, "-e", "error.log", "-g", "daemon off;" + user]
