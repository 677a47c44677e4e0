"""Logins that change on a real server while decisions go on: by a file, and by a provider as for AWS IAM."""

import asyncio
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

import redis
from data_plane.settings import RegionSettings
from data_plane.store.redis.credentials import Guarded, PasswordFile, load_provider
from redis.credentials import CredentialProvider
from tests.integration.redis.conftest import OpenStore
from tests.integration.redis.load import Load
from tidegate.stack.store import StoreServer

USER = "tidegate"
RENEW_S = 0.05
ROUNDS = 20


class Acl:
    """The ACL user on the server, as its administrator sees it."""

    def __init__(self, server: StoreServer) -> None:
        self._admin = redis.Redis.from_url(server.url)
        self._admin.execute_command("ACL", "SETUSER", USER, "reset", "on", "~*", "&*", "+@all")

    def add(self, password: str) -> None:
        self._admin.execute_command("ACL", "SETUSER", USER, f">{password}")

    def remove(self, password: str) -> None:
        self._admin.execute_command("ACL", "SETUSER", USER, f"<{password}")

    def auths(self) -> int:
        return int(self._admin.info("commandstats").get("cmdstat_auth", {"calls": 0})["calls"])

    def disconnect(self) -> int:
        """End every connection of the user, as a server does whose token lived for twelve hours."""
        return int(self._admin.execute_command("CLIENT", "KILL", "USER", USER))


class Rotating(CredentialProvider):
    """Tokens that somebody else makes, as AWS does."""

    def __init__(self) -> None:
        self.password = ""
        self.asked = 0

    def get_credentials(self) -> tuple[str, str]:
        self.asked += 1
        return USER, self.password


@pytest.fixture
def acl(start_store: Callable[..., StoreServer]) -> tuple[StoreServer, Acl]:
    server = start_store(name="Valkey with an ACL user")
    return server, Acl(server)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.005)


async def rotate(acl: Acl, give: Callable[[str], None], load: Load) -> None:
    """A new password again and again, each believed beside the one before until the store was logged in anew."""
    for number, (old, new) in enumerate(itertools.pairwise(f"password-{n}" for n in range(ROUNDS))):
        acl.add(new)
        before = acl.auths()
        give(new)
        await until(lambda seen=before: acl.auths() > seen)
        acl.remove(old)
        await load.verdicts(20, "allowed")
        assert number < ROUNDS


async def test_a_provider_rotates_passwords_and_no_decision_fails(
    acl: tuple[StoreServer, Acl], open_store: OpenStore
) -> None:
    server, users = acl
    provider = Rotating()
    provider.password = "password-0"
    users.add(provider.password)
    where = f"redis://127.0.0.1:{server.port}/0"
    store = await open_store(where, credentials=Guarded(provider), renew_credentials_s=RENEW_S, deadline_ms=1_000)
    load = Load(store)
    await load.verdicts(50, "allowed")

    def give(password: str) -> None:
        provider.password = password

    await rotate(users, give, load)
    await store.execute("PING")
    ended = await load.stop()
    assert set(ended) == {"allowed"}
    assert ended["allowed"] > ROUNDS * 20
    # every connection that was logged in by a password of long ago ends: new ones use the one of now
    assert users.disconnect() > 0
    again = Load(store)
    await again.verdicts(50, "allowed")
    await again.stop()
    assert await store.execute("ACL", "WHOAMI") == USER.encode()


async def test_a_password_file_is_read_as_it_changes(
    acl: tuple[StoreServer, Acl], open_store: OpenStore, tmp_path: Path
) -> None:
    server, users = acl
    path = tmp_path / "password"
    path.write_text("password-0\n")
    users.add("password-0")
    where = f"redis://{USER}@127.0.0.1:{server.port}/0"
    credentials = Guarded(PasswordFile(path, USER))
    store = await open_store(where, credentials=credentials, renew_credentials_s=RENEW_S, deadline_ms=1_000)
    load = Load(store)
    await load.verdicts(50, "allowed")

    def give(password: str) -> None:
        beside = tmp_path / "new"
        beside.write_text(password + "\n")
        beside.rename(path)

    await rotate(users, give, load)
    ended = await load.stop()
    assert set(ended) == {"allowed"}


async def test_a_refused_login_is_tried_again_until_the_file_is_right(
    acl: tuple[StoreServer, Acl], open_store: OpenStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also a file that is gone or empty for a while ends nothing."""
    server, users = acl
    path = tmp_path / "password"
    path.write_text("the-old-one")
    users.add("the-old-one")
    where = f"redis://{USER}@127.0.0.1:{server.port}/0"
    store = await open_store(
        where, credentials=Guarded(PasswordFile(path, USER)), renew_credentials_s=RENEW_S, deadline_ms=1_000
    )
    users.remove("the-old-one")
    users.add("the-new-one")
    load = Load(store)
    await load.verdicts(50, "allowed")  # who was let in stays
    path.write_text("")
    users.disconnect()
    await until(lambda: store.status().shards[0].problem == "no_permission")
    path.unlink()
    await until(lambda: "FileNotFoundError" in caplog.text)
    path.write_text("the-new-one")
    await load.verdicts(50, "allowed")
    await load.stop()
    assert "the-old-one" not in caplog.text
    assert "the-new-one" not in caplog.text


async def test_whatever_a_provider_raises_is_a_failed_login(
    acl: tuple[StoreServer, Acl], open_store: OpenStore, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(CredentialProvider):
        def get_credentials(self) -> tuple[str, str]:
            raise RuntimeError("with a secret-of-somebody in it")

    server, _ = acl
    store = await open_store(f"redis://127.0.0.1:{server.port}/0", credentials=Guarded(Broken()))
    assert store.status().shards[0].problem == "no_permission"
    await until(lambda: store.stats.connect_failures > 2)
    assert "secret-of-somebody" not in caplog.text
    assert "RuntimeError" in caplog.text


# --- settings -----------------------------------------------------------------------------------------------------


def region(**changes: object) -> RegionSettings:
    values = {
        "region": "eu", "redis_url": SecretStr("redis://127.0.0.1:1/0"), "control_plane_url": "http://127.0.0.1:1",
        "control_plane_public_key": "0" * 64, "region_credential": SecretStr("tgr_x"),
    }  # fmt: skip
    return RegionSettings(**(values | changes))  # type: ignore[arg-type]


def test_the_settings_lead_to_a_file_or_a_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "password"
    path.write_text("p")
    url = SecretStr("redis://a%40b@127.0.0.1:1/0")
    credentials = region(redis_password_file=path, redis_url=url).store_settings().credentials
    assert credentials is not None
    assert credentials.get_credentials() == ("a@b", "p")
    bare = region(redis_password_file=path).store_settings().credentials
    assert bare is not None
    assert bare.get_credentials() == ("p",)
    (tmp_path / "own_credentials.py").write_text(
        "from redis.credentials import CredentialProvider\n"
        "class Own(CredentialProvider):\n"
        "    def get_credentials(self):\n        return ('me', 'token')\n"
        "number = int\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    own = region(redis_credentials="own_credentials:Own").store_settings().credentials
    assert own is not None
    assert own.get_credentials() == ("me", "token")
    with pytest.raises(ValueError, match="made no CredentialProvider"):
        load_provider("own_credentials:number")
    sys.modules.pop("own_credentials", None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"redis_credentials": "nowhere_at_all:x"}, "cannot be imported: ModuleNotFoundError"),
        ({"redis_credentials": "json:nothing"}, "cannot be imported: AttributeError"),
        ({"redis_credentials": "json"}, "pattern"),
        ({"redis_password_file": "/nowhere"}, "No such file"),
        ({"redis_password_file": os.devnull, "redis_url": SecretStr("redis://:p@h/0")}, "comes from one place"),
        ({"redis_password_file": os.devnull, "redis_credentials": "json:loads"}, "comes from one place"),
    ],
)
def test_settings_that_cannot_work_are_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        region(**changes)
