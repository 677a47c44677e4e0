"""What `tidegate up` shows to others: its output, and the command lines of what it starts."""

import re

from testing.stack import ADMIN_TOKEN, Stack


def test_prints_one_ready_line_and_says_that_the_network_is_trusted(stack: Stack) -> None:
    output = stack.output()
    (ready,) = re.findall(r"^ready: .*$", output, flags=re.MULTILINE)
    assert f"control plane http://127.0.0.1:{stack.options.control_plane_port}" in ready
    for place in stack.nodes:
        assert f"{place.name} {place.url}" in ready
    assert "trusted" in output
    assert ADMIN_TOKEN not in output, "a token that the user gave is not printed"


def test_no_secret_is_on_a_command_line(stack: Stack) -> None:
    node = stack.part("data-plane", "us-east-1").environ()
    secrets = [ADMIN_TOKEN, node["TIDEGATE_REGION_CREDENTIAL"], node["TIDEGATE_REDIS_URL"].split("@")[0].split(":")[-1]]
    lines = [" ".join(process.cmdline()) for process in stack.processes()]
    assert [line for line in lines if any(secret in line for secret in secrets)] == []
