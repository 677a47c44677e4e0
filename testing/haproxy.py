"""HAProxy from Debian's packages, asking a node by a Lua action."""

import re
from pathlib import Path

from testing.gateway import BUDGET_S, GatewayServer, debian_program

DEADLINE = re.compile(r"\bDEADLINE_MS = \d+$", re.MULTILINE)


class HaproxyServer(GatewayServer):
    """docs/gateways/haproxy/."""

    name = "haproxy"
    dialect = "haproxy"

    def command(self) -> list[str | Path]:
        program = debian_program("haproxy")
        script = self.example("tidegate.lua")
        # Longer than a try, a pause and another try, as in the example: a try may take BUDGET_S here.
        script.write_text(DEADLINE.sub(f"DEADLINE_MS = {3_000 * BUDGET_S}", script.read_text()))
        return [program, "-db", "-f", self.example("haproxy.cfg")]
