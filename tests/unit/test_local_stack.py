"""The local stack's layout and secrets."""

import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate.contract.credentials import credential_kind
from tidegate.stack.child import Child
from tidegate.stack.keyring import open_admin_token, open_keyring
from tidegate.stack.layout import DataDir, StackOptions, node_places, require_sound
from tidegate.stack.local import LocalStack
from tidegate.stack.passed_on import settings_to_pass_on
from tidegate.stack.ports import free_ports
from tidegate.stack.progress import Progress, StackError
from tidegate.stack.up import STOP_SIGNALS, run_up, started

OWN_TOKEN = "a-token-of-my-own-choice"


def test_first_nodes_are_in_a_row_and_further_ones_ten_higher() -> None:
    options = StackOptions(regions=("us-east", "eu-west"), nodes_per_region=2)
    assert [(place.name, place.port) for place in node_places(options)] == [
        ("us-east-1", 8101),
        ("eu-west-1", 8102),
        ("us-east-2", 8111),
        ("eu-west-2", 8112),
    ]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (StackOptions(regions=()), "--regions names no region"),
        (StackOptions(regions=("Us East",)), "'Us East' is not a name"),
        (StackOptions(regions=("a", "a")), "names a region twice"),
        (StackOptions(regions=tuple(f"r{nth}" for nth in range(11))), "at most 10 regions"),
        (StackOptions(regions=("a",), control_plane_port=8101), "both listen on port 8101"),
        (StackOptions(regions=("a", "b"), first_node_port=65535), "port 65536, which is no port"),
        (StackOptions(regions=("a",), rls_port=8101), "rate limit service would both listen on port 8101"),
    ],
)
def test_unsound_options_are_named(options: StackOptions, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever listens on this machine is not what is tested here.
    monkeypatch.setattr("tidegate.stack.layout.require_free", lambda *_, **__: None)
    with pytest.raises(StackError, match=named):
        require_sound(options)


def test_a_port_that_another_takes_first_is_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_dir = DataDir(tmp_path)
    keyring = open_keyring(data_dir, ("us-east",))
    data_dir.logs.mkdir()
    chosen = []

    def new_stack() -> LocalStack:
        options = StackOptions(regions=("us-east",))
        return LocalStack(options, data_dir, keyring, progress=_UntilServersRun(), interrupted=lambda: None)

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def choose(count: int) -> list[int]:
            chosen.append(free_ports(count) if chosen else [free_ports(1)[0], other.getsockname()[1]])
            return chosen[-1]

        monkeypatch.setattr("tidegate.stack.local.free_ports", choose)
        with pytest.raises(_ReachedError):
            started(new_stack, "a-token-that-nobody-asks-for", Progress())
    assert len(chosen) == 2


class _ReachedError(Exception):
    """The start went on."""


class _UntilServersRun(Progress):
    def step(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Once Postgres and Valkey are ready, the schema is next."""
        if name == "database schema":
            raise _ReachedError
        return super().step(name)


def test_secrets_are_made_once_and_for_nobody_else_to_read(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path)
    first = open_keyring(data_dir, ("us-east",))
    assert credential_kind(first.region_credentials["us-east"]) == "region"
    assert data_dir.secrets.stat().st_mode & 0o777 == 0o600
    assert data_dir.signing_key.stat().st_mode & 0o777 == 0o600
    second = open_keyring(data_dir, ("us-east", "eu-west"))
    assert second.signing_key == first.signing_key
    assert second.postgres_password == first.postgres_password
    assert second.region_credentials["us-east"] == first.region_credentials["us-east"]
    assert second.region_credentials["eu-west"] != first.region_credentials["us-east"]


def test_admin_token_is_made_once_and_kept(tmp_path: Path) -> None:
    token, made = open_admin_token(DataDir(tmp_path), None)
    assert made
    assert credential_kind(token) == "admin"
    assert open_admin_token(DataDir(tmp_path), None) == (token, False)
    assert (tmp_path / "admin-token").stat().st_mode & 0o777 == 0o600


def test_admin_token_of_the_user_is_taken_and_not_called_made(tmp_path: Path) -> None:
    assert open_admin_token(DataDir(tmp_path), OWN_TOKEN) == (OWN_TOKEN, False)
    assert open_admin_token(DataDir(tmp_path), OWN_TOKEN) == (OWN_TOKEN, False)


def test_another_admin_token_than_the_kept_one_is_refused(tmp_path: Path) -> None:
    open_admin_token(DataDir(tmp_path), OWN_TOKEN)
    with pytest.raises(StackError, match="differs from the first token"):
        open_admin_token(DataDir(tmp_path), OWN_TOKEN + "!")
    with pytest.raises(StackError, match="at least 16 characters"):
        open_admin_token(DataDir(tmp_path / "other"), "short")


def test_what_cannot_be_used_is_said_in_a_line(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path)
    data_dir.secrets.write_text('{"postgres_password": "hush')
    with pytest.raises(StackError, match=r"secrets\.json is damaged") as refused:
        open_keyring(data_dir, ("eu",))
    assert "hush" not in str(refused.value)
    with pytest.raises(StackError, match="printable ASCII"):
        open_admin_token(data_dir, "é" * 20)
    assert not data_dir.admin_token.exists()


@pytest.fixture
def signals_as_before() -> Iterator[None]:
    """`up` takes the signals of its process, and this one has more tests to run."""
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_as_before")
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DataDir(tmp_path).admin_token.mkdir()
    control_plane, node = free_ports(2)
    options = StackOptions(("eu",), data_dir=tmp_path, control_plane_port=control_plane, first_node_port=node)
    assert run_up(options) == 1
    assert "admin-token: Is a directory" in "".join(capsys.readouterr().err.splitlines())


@pytest.mark.usefixtures("signals_as_before")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("UNKNOWN_KEY=hush", "node eu-1 refuses its settings\n  TIDEGATE_UNKNOWN_KEY: Input should be 'anonymous' or"),
        ("LOAD_SERVERS=hush", "agent eu-agent refuses its settings\n  TIDEGATE_LOAD_SERVERS: a server is name="),
        (
            "HEARTBEAT_S=hush",
            "control plane refuses its settings\n  TIDEGATE_HEARTBEAT_S: Input should be a valid number",
        ),
        ("OIDC_AUDIENCE=hush", "control plane refuses its settings\n  TIDEGATE_OIDC_ISSUER is needed beside"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_starts(
    given: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Child, "start", lambda child: pytest.fail(f"{child.name} was started"))
    ports = dict(zip(("control_plane_port", "first_node_port", "first_agent_port"), free_ports(3), strict=True))
    assert run_up(StackOptions(("eu",), settings=settings_to_pass_on({}, [given]), **ports)) == 1
    out, err = capsys.readouterr()
    assert said in err
    assert "hush" not in out + err
    assert "logs" not in err
