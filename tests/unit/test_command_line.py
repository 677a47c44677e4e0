"""What a person may type or have: every mistake is a line and an exit code, and every width has room for the answer."""

import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from tidegate.cli import app
from tidegate.terminal import Fitting

NO_BYTES = "\udcff"  # as Python hands over an argument that is no UTF-8
TOKEN = "x" * 20


def said_of(*arguments: str, code: int, token: str = TOKEN) -> str:
    """What the command says before it ends with ``code``."""
    env = {"TIDEGATE_ADMIN_TOKEN": token, "TIDEGATE_GATEWAY_TOKEN": token, "COLUMNS": "300"}
    result = CliRunner().invoke(app, list(arguments), env=env)
    assert isinstance(result.exception, SystemExit), (arguments, result.exception)
    assert result.exit_code == code, (arguments, result.output)
    return result.output


@pytest.mark.parametrize("command", ["check", "top", "export", "apply", "diff"])
def test_addresses_and_tokens_that_cannot_be_used_are_named(command: str, tmp_path: Path) -> None:
    code = 1 if command == "diff" else 2  # of which 2 says that something differs
    for url in ("http://[::1", "nonsense", "http://", "ftp://x", "http://x:99999"):
        assert "must be http://host:port" in said_of(command, "--url", url, code=code)
    for token in ("tga_\xe9", "a\nb"):
        assert "holds no token" in said_of(command, code=code, token=token)
    if command != "check":
        file = tmp_path / "token"
        file.write_bytes(b"\xff\xfe")
        assert "holds no token" in said_of(command, "--token-file", str(file), code=code)
        assert "cannot be read" in said_of(command, "--token-file", str(tmp_path), code=code)
        assert "set TIDEGATE_ADMIN_TOKEN" in said_of(command, code=code, token="")


def test_texts_that_cannot_be_sent_are_named() -> None:
    assert "is not UTF-8" in said_of("check", "--path", NO_BYTES, code=2)
    for reason in (NO_BYTES, "two\nlines"):
        assert "one line of printable" in said_of("apply", "--reason", reason, code=2)


def test_an_empty_variable_of_a_script_is_no_question() -> None:
    for nothing in ("", " "):
        assert "WHAT is empty" in said_of("why", nothing, "--url", "http://127.0.0.1:1", code=2)


@pytest.mark.parametrize("text", ["x: !!binary aGFsbG8=", "x: {? [a, b] : 1}", "x: !!set {a}", "x: !!int y"])
def test_what_only_yaml_can_say_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "tidegate.yaml"
    file.write_text(f"version: 1\n{text}\n")
    assert str(file) in said_of("diff", "-f", str(file), "--url", "http://127.0.0.1:1", code=1)


def test_of_two_options_that_mean_the_same_none_is_dropped() -> None:
    said = said_of("limits", "set", "hourly", "--window-s", "60", "--window", "hour", code=2)
    assert "--window-s: is given in place of --window, not with it" in said


def test_a_key_of_a_name_that_cannot_be_is_named() -> None:
    assert "File name too long" in said_of("signing-key", "a" * 300, code=1)


def test_a_full_disk_under_the_output_is_neither_a_verdict_nor_a_difference() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "tidegate", "schema"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 74
    assert ended.stderr == "tidegate: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("width", [20, 34, 60])
def test_nothing_is_cut_off_where_it_is_narrow(width: int) -> None:
    table = Table("busiest clients", "allowed this hour", title="now")
    table.add_row("a-client", "1,000,000")
    console = Console(file=StringIO(), width=width)
    console.print(Fitting(table))
    text = console.file.getvalue()
    for word in ("now", "busiest", "clients", "allowed", "hour", "a-client", "1,000,000"):
        assert word in text, text
    assert "\u2026" not in text
