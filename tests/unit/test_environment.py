"""What is wrong with a plane's settings is said by name at its start, and no secret with it."""

import pytest
from typer.testing import CliRunner

from tidegate.cli import app

NODE = {
    "TIDEGATE_REGION": "us-east", "TIDEGATE_CONTROL_PLANE_URL": "http://control:8000",
    "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": "ab" * 32, "TIDEGATE_REGION_CREDENTIAL": "hush",
    "TIDEGATE_REDIS_URL": "redis://:hush@store:6379/0",
}  # fmt: skip


def said_of(command: str, settings: dict[str, str]) -> str:
    """What it says before it ends with the code for wrong settings."""
    result = CliRunner().invoke(app, [command], env=settings)
    assert result.exit_code == 2, result.output
    assert "hush" not in result.output
    return result.output


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"REDIS_URL": "store:hush"}, "TIDEGATE_REDIS_URL: must be redis://"),
        ({"REDIS_URL": "redis://:hush@store:port/0"}, "TIDEGATE_REDIS_URL: must be redis://"),
        ({"CONTROL_PLANE_URL": "control:8000"}, "TIDEGATE_CONTROL_PLANE_URL: "),
        ({"KEY_SOURCES": "cookie"}, "TIDEGATE_KEY_SOURCES: "),
        ({"TLS_CERT_FILE": "/nowhere"}, "TIDEGATE_TLS_CERT_FILE: /nowhere: No such file"),
        ({"REDIS_CA_FILE": "/nowhere"}, "TIDEGATE_REDIS_CA_FILE: /nowhere: No such file"),
        ({"TLS_CLIENT_CA_FILE": "/dev/null"}, "TIDEGATE_TLS_CLIENT_CA_FILE needs TIDEGATE_TLS_CERT_FILE"),
        ({"TLS_KEY_FILE": "/dev/null"}, "TIDEGATE_TLS_KEY_FILE needs TIDEGATE_TLS_CERT_FILE"),
        ({"RLS_PORT": "0", "TLS_CERT_FILE": "/dev/null"}, "needs TIDEGATE_TLS_KEY_FILE"),
        ({"REDIS_SHAPE": "sentinel"}, "TIDEGATE_REDIS_SHAPE sentinel needs TIDEGATE_REDIS_SENTINELS"),
    ],
)
def test_a_node_names_what_is_wrong(wrong: dict[str, str], named: str) -> None:
    said = said_of("data-plane", NODE | {f"TIDEGATE_{name}": value for name, value in wrong.items()})
    assert named in said
