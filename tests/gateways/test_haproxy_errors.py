"""HAProxy goes on after an error in Lua: what becomes of the request must be the policy's to say."""

import os
from pathlib import Path

import pytest

from testing.haproxy import HaproxyServer
from testing.upstream import Upstream
from tests.gateways.setting import EndClient
from tidegate.stack.ports import free_ports


class BrokenLua(HaproxyServer):
    """Its action fails at the first line."""

    def command(self) -> list[str | Path]:
        command = super().command()
        script = self.directory / "tidegate.lua"
        begin = 'core.register_action("tidegate", { "http-req" }, function(txn)\n'
        text = script.read_text()
        assert begin in text
        script.write_text(text.replace(begin, begin + '    error("broken")\n'))
        return command


def test_that_no_node_decides_is_logged_once_in_a_while(tmp_path: Path) -> None:
    with Upstream().running() as upstream:
        port = free_ports(1)[0]  # nobody listens
        gateway = HaproxyServer(
            tmp_path / "haproxy", node_port=port, upstream_port=upstream.port, options=["fail-open"]
        )
        try:
            gateway.start()
            assert [EndClient(gateway.port).ask().status for _ in range(9)] == [200] * 9
            said = gateway.child.log_tail().count("tidegate: no decision from a node, status 503")
            assert 1 <= said <= len(os.sched_getaffinity(0)), "once for each thread: each has a Lua of its own"
        finally:
            gateway.child.stop()


@pytest.mark.parametrize(("options", "status"), [([], 503), (["fail-open"], 200)])
def test_an_error_in_lua_leads_to_the_policy(tmp_path: Path, options: list[str], status: int) -> None:
    with Upstream().running() as upstream:
        gateway = BrokenLua(
            tmp_path / "haproxy", node_port=free_ports(1)[0], upstream_port=upstream.port, options=options
        )
        try:
            gateway.start()
            assert EndClient(gateway.port).ask().status == status
        finally:
            gateway.child.stop()
        assert upstream.requests == (status == 200)
