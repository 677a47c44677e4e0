"""The database's URL: both spellings mean the same, and what cannot work is named without what is secret in it."""

import socket
from pathlib import Path

import pytest

import tidegate.migrate
from control_plane.postgres import libpq_url


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("postgresql+asyncpg://u:p@h/d", "postgresql://u:p@h/d"),
        ("postgres://u:p@h:5433/d", "postgresql://u:p@h:5433/d"),
        ("postgresql+asyncpg://u:p@h/d?ssl=require", "postgresql://u:p@h/d?sslmode=require"),
        ("postgresql://u:p%2F%40%20@h/d?sslmode=verify-full", "postgresql://u:p%2F%40 @h/d?sslmode=verify-full"),
        ("postgresql://u:p@h/d?ssl=allow&sslmode=allow", "postgresql://u:p@h/d?sslmode=allow"),
        ("postgresql://u:p@h/d?target_session_attrs=primary", "postgresql://u:p@h/d?target_session_attrs=primary"),
    ],
)
def test_both_spellings_mean_the_same(given: str, wanted: str) -> None:
    assert libpq_url(given) == wanted


def test_files_are_looked_for_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    file.write_text("")
    assert "sslrootcert=" in libpq_url(f"postgresql://u:p@h/d?sslrootcert={file}")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://u:hunter2@h/d", "must be postgresql://"),
        ("postgresql+psycopg://u:hunter2@h/d", "must be postgresql://"),
        ("postgresql://u:hunter2@h:65536/d", "must be postgresql://"),
        ("hunter2", "must be postgresql://"),
        ("postgresql://u:hunter2@h/d?ssl=true", "sslmode must be one of disable, "),
        ("postgresql://u:hunter2@h/d?ssl=require&sslmode=disable", "sslmode must be one of"),
        ("postgresql://u:hunter2@h/d?sslmode=require&sslmode=disable", "sslmode must be one of"),
        ("postgresql://u:hunter2@h/d?sslrootcert=/nowhere", "sslrootcert must name a file"),
        ("postgresql://u:hunter2@h/d?sslcert=/nowhere", "sslcert must name a file"),
    ],
)
def test_what_cannot_work_is_named_and_nothing_secret_is(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        libpq_url(url)
    assert "hunter2" not in str(refused.value)


def test_the_migration_says_why_a_database_that_is_mute_cannot_be_reached(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tidegate.migrate, "CONNECT_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"postgresql://u:hunter2@127.0.0.1:{mute.getsockname()[1]}/d?sslmode=disable"
        assert tidegate.migrate.migrate_when_ready(url, wait_s=0) == 1
    assert capsys.readouterr().err == "tidegate: the database cannot be reached: it does not answer\n"
