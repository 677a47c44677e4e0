"""Settings say which one is wrong, and never what is in it."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from control_plane.settings import Settings, SettingsError


def settings(tmp_path: Path, key: str = "00" * 32, **changes: object) -> Settings:
    file = tmp_path / "key"
    file.write_text(key)
    values = {"database_url": SecretStr("postgresql+asyncpg://u:hunter2@h/d"), "signing_key_file": file}
    return Settings(**(values | changes))  # type: ignore[arg-type]  # checked by pydantic


def test_a_signing_key_is_32_bytes_in_hex(tmp_path: Path) -> None:
    assert settings(tmp_path, "ab" * 32 + "\n").signing_key().private_bytes_raw() == b"\xab" * 32
    for wrong in ("", "ab", "not hex at all", "ab" * 33):
        with pytest.raises(SettingsError, match="signing_key_file") as refused:
            settings(tmp_path, wrong).signing_key()
        assert not wrong or wrong not in str(refused.value)
    with pytest.raises(SettingsError, match="signing_key_file: cannot be read"):
        settings(tmp_path, signing_key_file=tmp_path / "absent").signing_key()


def test_the_first_admin_token_is_long_enough_and_may_come_from_a_file(tmp_path: Path) -> None:
    assert settings(tmp_path).first_admin_token() is None
    with pytest.raises(SettingsError, match="admin_token: needs at least 16"):
        settings(tmp_path, admin_token=SecretStr("short")).first_admin_token()
    file = tmp_path / "token"
    file.write_text("a long enough token\n")
    assert settings(tmp_path, admin_token_file=file).first_admin_token() == "a long enough token"


def test_no_secret_is_in_the_settings_text(tmp_path: Path) -> None:
    shown = repr(settings(tmp_path, admin_token=SecretStr("correct horse battery")))
    assert "hunter2" not in shown
    assert "horse" not in shown
