"""What an artefact may not hold is found, wherever in it it lies."""

import base64
import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from tidegate.contract.credentials import make_credential
from tools.release.contents import KNOWN_HOSTS, faults, registry_hosts

HOST = "registry.of-a-company.example"
PRIVATE_KEY = b"-----BEGIN OPENSSH " + b"PRIVATE KEY-----\n"
CREDENTIAL = make_credential("admin", bytes(range(32))).encode()
TOKEN = ("ghp" + "_" + "a1B2" * 9).encode()
JWT = b".".join(
    base64.urlsafe_b64encode(part).rstrip(b"=") for part in (b'{"alg":"none"}', b'{"sub":"acme","n":1}', b"x" * 20)
)


def tar(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in members.items():
            item = tarfile.TarInfo(name)
            item.size = len(content)
            archive.addfile(item, io.BytesIO(content))
    return packed.getvalue()


def wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("values.yaml", PRIVATE_KEY, "holds a private key"),
        ("values.yaml", b"token: " + CREDENTIAL + b"\n", "holds a credential of Tidegate (admin)"),
        ("values.yaml", TOKEN, "holds a token of GitHub"),
        ("values.yaml", JWT, "holds a JSON web token"),
        ("values.yaml", b"AKIA" + b"ABCDEFGHIJKLMNOP", "holds a key of AWS"),
        (".npmrc", b"", "a file that holds secrets by its name"),
        ("files/.env", b"", "a file that holds secrets by its name"),
        ("files/tls.pem", b"", "a file that holds secrets by its name"),
        ("package-lock.json", f'"https://{HOST.upper()}/x.tgz"'.encode(), f"names the package registry {HOST}"),
    ],
)
def test_what_may_not_be_there_is_named_with_its_place(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    inner = tar({f"inner/{name}": content})
    outer = tmp_path / "outer-1.tgz"
    outer.write_bytes(tar({"outer/charts/inner-1.tgz": inner}))
    (fault,) = faults([outer], {HOST})
    assert fault == f"outer-1.tgz/outer/charts/inner-1.tgz/inner/{name}: {said}"


def test_what_only_looks_like_a_credential_may_be_there(tmp_path: Path) -> None:
    plain = tmp_path / "README.md"
    plain.write_text("curl -H 'X-API-Key: tg_...' and tga_" + "x" * 49 + ", tg_acme, a .env file, BEGIN PUBLIC KEY")
    assert faults([plain], {HOST}) == []


@pytest.mark.parametrize("foreign", ["lua", "contract", "migrations", "tests", "tools", "setup.py"])
def test_a_wheel_has_no_foreign_top_level_package(tmp_path: Path, foreign: str) -> None:
    info = "tidegate-1.dist-info/METADATA"
    made = wheel(tmp_path / "tidegate-1-py3-none-any.whl", {"tidegate/__init__.py": b"", info: b"", foreign: b""})
    assert faults([made], {HOST}) == [f"{made.name}: top-level {foreign}"]
    nested = wheel(made, {"tidegate/__init__.py": b"", f"{foreign}/x.py": b""})
    assert faults([nested], {HOST}) == [f"{made.name}: top-level {foreign}"]


def test_the_registries_of_this_machine_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"https://user:word@{HOST}/simple")
    monkeypatch.setenv("UV_INDEX_URL", "http://127.0.0.1:3141/simple http://localhost/simple")
    hosts = registry_hosts()
    assert KNOWN_HOSTS | {HOST} <= hosts
    assert not {"127.0.0.1", "localhost"} & hosts


def test_no_artefact_holds_any_of_it(dist: Path) -> None:
    assert faults(sorted(dist.iterdir()), registry_hosts()) == []
