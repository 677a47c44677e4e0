"""What is wrong with a plane's settings is said by name at its start, and no secret with it."""

from pathlib import Path

import certifi
import pytest
from typer.testing import CliRunner

from tidegate.cli import app

NODE = {
    "TIDEGATE_REGION": "us-east", "TIDEGATE_CONTROL_PLANE_URL": "http://control:8000",
    "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": "ab" * 32, "TIDEGATE_REGION_CREDENTIAL": "hush",
    "TIDEGATE_REDIS_URL": "redis://:hush@store:6379/0",
}  # fmt: skip


@pytest.fixture(autouse=True)
def logs_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plane that starts takes the process's logs, and this one has more tests to run."""
    monkeypatch.setattr("tidegate.logs.configure_logs", lambda _: None)


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
        ({"TLS_CLIENT_CA_FILE": certifi.where()}, "TIDEGATE_TLS_CLIENT_CA_FILE needs TIDEGATE_TLS_CERT_FILE"),
        ({"TLS_KEY_FILE": "/dev/null"}, "TIDEGATE_TLS_KEY_FILE needs TIDEGATE_TLS_CERT_FILE"),
        ({"RLS_PORT": "0", "TLS_CERT_FILE": "/dev/null"}, "needs TIDEGATE_TLS_KEY_FILE"),
        ({"TLS_CERT_FILE": "/dev/null", "TLS_KEY_FILE": "/dev/null"}, "TIDEGATE_TLS_CERT_FILE: holds no certificate"),
        ({"REGION_CREDENTIAL": "hush\u00e9"}, "TIDEGATE_REGION_CREDENTIAL: must be one line of ASCII"),
        ({"REDIS_SHAPE": "sentinel"}, "TIDEGATE_REDIS_SHAPE sentinel needs TIDEGATE_REDIS_SENTINELS"),
    ],
)
def test_a_node_names_what_is_wrong(wrong: dict[str, str], named: str) -> None:
    said = said_of("data-plane", NODE | {f"TIDEGATE_{name}": value for name, value in wrong.items()})
    assert named in said


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"DATABASE_URL": "hush"}, "TIDEGATE_DATABASE_URL: must be postgresql://"),
        ({"DATABASE_URL": "mysql://u:hush@h/d"}, "TIDEGATE_DATABASE_URL: must be postgresql://"),
        ({"LOG_LEVEL": "loud"}, "TIDEGATE_LOG_LEVEL: "),
        ({"SIGNING_KEY_FILE": "/nowhere"}, "TIDEGATE_SIGNING_KEY_FILE: cannot be read"),
        ({"ADMIN_TOKEN_FILE": "/bin/true"}, "TIDEGATE_ADMIN_TOKEN_FILE: holds no token"),
        ({"DATABASE_URL": "postgresql+asyncpg://u:hush@h:99999/d"}, "TIDEGATE_DATABASE_URL: must be"),
        ({"ADMIN_TOKEN": "hush"}, "TIDEGATE_ADMIN_TOKEN: needs at least 16"),
    ],
)
def test_a_control_plane_names_what_is_wrong(wrong: dict[str, str], named: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("ab" * 32)
    right = {"TIDEGATE_DATABASE_URL": "postgresql+asyncpg://u:hush@h/d", "TIDEGATE_SIGNING_KEY_FILE": str(key)}
    assert named in said_of("control-plane", right | {f"TIDEGATE_{name}": value for name, value in wrong.items()})


@pytest.mark.parametrize("url", ["hush", "postgresql+asyncpg://u:hush@h:port/d", "mysql://u:hush@h/d"])
def test_a_migration_names_what_is_wrong(url: str) -> None:
    assert "TIDEGATE_DATABASE_URL" in said_of("migrate", {"TIDEGATE_DATABASE_URL": url})


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"PEERS_CA_FILE": "/dev/null"}, "TIDEGATE_PEERS_CA_FILE: /dev/null holds no certificate"),
        ({"PEERS_KEY_FILE": "/dev/null"}, "TIDEGATE_PEERS_KEY_FILE needs TIDEGATE_PEERS_CERT_FILE"),
        ({"LOAD_SERVERS": "main"}, "TIDEGATE_LOAD_SERVERS: a server is name="),
        ({"REDIS_URL": "store:hush"}, "TIDEGATE_REDIS_URL: must be redis://"),
    ],
)
def test_an_agent_names_what_is_wrong(wrong: dict[str, str], named: str) -> None:
    said = said_of("region-agent", NODE | {f"TIDEGATE_{name}": value for name, value in wrong.items()})
    assert named in said
    assert "hush" not in said
