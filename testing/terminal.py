"""A reader at a terminal, who types the commands of a page in a clone of this repository while a demo runs."""

import contextlib
import os
import re
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from testing.gateway import BUDGET, BUDGET_S
from testing.pages import ROOT, Block, blocks
from testing.stack import ADMIN_TOKEN, Stack, wait_for
from tidegate.stack.ports import LOOPBACK, free_ports
from tidegate.stack.postgres import postgres_binary

PATIENCE_S = 60.0
_TOKEN = re.compile(r"\b(tg[a-z]?_)[\w-]{8,}")
_MAKE = """\
make() { command make --silent -n -C "$CLONE" "$@" | sed -n 's/tidegate up.*/& --help/p' | bash -e >/dev/null; }
"""
"""The demo runs already: `make up` only has to be a command that `tidegate up` takes."""


class Terminal:
    """One bash in ``directory``, which looks like a clone.

    Ports of pages become those of ``stack``; a secret that a page shows as ``tgg_...`` becomes the one printed last.
    """

    def __init__(self, stack: Stack, directory: Path) -> None:
        self._gateway, self._traefik, self._upstream = free_ports(3)
        options = stack.options
        self._ports = {
            "8000": options.control_plane_port,
            "8101": stack.node(options.regions[0]).port,
            "8102": stack.nodes[1 % len(stack.nodes)].port,
            "8080": self._gateway,
            "8090": self._traefik,
            "8181": options.rls_port or free_ports(1)[0],
            "9000": self._upstream,
        }
        self._directory = directory
        self._admin_url = str(stack.admin.base_url)
        self._secrets = {"tga_": ADMIN_TOKEN}
        self._keep_secrets("".join(re.findall(r"\btg_[\w-]{8,}", stack.output())[:1]))
        self._make_clone()
        environment = {**os.environ, "HOME": str(directory), "CLONE": str(ROOT), "COLUMNS": "200"}
        programs = (
            Path(sys.executable).parent,
            postgres_binary("psql").parent,
            os.environ["PATH"],
            "/usr/sbin",
            "/sbin",
        )
        environment["PATH"] = ":".join(map(str, programs))
        environment |= _database(stack)
        environment |= {"TIDEGATE_URL": self._admin_url, "TIDEGATE_ADMIN_TOKEN": ADMIN_TOKEN, "TOKEN": ADMIN_TOKEN}
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"], cwd=directory, env=environment, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._type(f"set -euo pipefail\n{_MAKE}")

    def read(self, page: str, change: Mapping[str, str] | None = None) -> list[tuple[Block, str]]:
        """Type all commands of a page that can run here, changed so; each block and what it printed."""
        commands = [block for block in blocks(page, "sh") if block.why_not_here is None]
        assert commands, f"{page} has no command that runs here"
        for shown in change or {}:
            assert any(shown in block.text for block in commands), f"{shown} is not on {page}"
        return [(block, self.type(block.text, change)) for block in commands]

    def type(self, script: str, change: Mapping[str, str] | None = None) -> str:
        """Type commands; fail unless each exits with 0. What they printed."""
        for shown, meant in (change or {}).items():
            script = script.replace(shown, meant)
        printed, command = "", ""
        for line in script.splitlines(keepends=True):
            command += line
            if not line.endswith("\\\n") and _is_whole(command):
                printed, command = printed + self._type_when_ready(command), ""
        assert not command, f"not a whole command: {command}"
        return printed

    def write(self, name: str, text: str) -> None:
        """Put a file into the reader's folder."""
        file = self._directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def close(self) -> None:
        """End bash and all that it started; a daemon, which left its group, by the folder that its command names."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGTERM)
        self._bash.wait(timeout=PATIENCE_S)
        daemons = [
            one
            for one in psutil.process_iter(["cmdline"])
            if f"{self._directory}/" in " ".join(one.info["cmdline"] or ())
        ]
        for daemon in daemons:
            daemon.terminate()
        psutil.wait_procs(daemons, timeout=PATIENCE_S)
        self._bash.communicate()

    def _type_when_ready(self, command: str) -> str:
        command = self._as_here(command)
        if re.search(rf"curl .*{LOOPBACK}:{self._gateway}\b", command):
            wait_for(self._gateway_has_routes, PATIENCE_S, "the gateway")
        printed = self._type(command)
        if f"http.server {self._upstream}" in command:
            wait_for(lambda: _listens(self._upstream), PATIENCE_S, "the server to protect")
        return printed

    def _gateway_has_routes(self) -> bool:
        """Traefik reads them a moment after it listens. The path is the demo's exempt one."""
        with contextlib.suppress(httpx.TransportError):
            return "server" in httpx.get(f"http://{LOOPBACK}:{self._gateway}/healthz", trust_env=False).headers
        return False

    def _type(self, command: str) -> str:
        """Hand it to bash; what is printed until it is done."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        done = f"done-{secrets.token_hex(8)}"
        self._bash.stdin.write(f"{command}\necho {done}\n".encode())
        self._bash.stdin.flush()
        printed, ends = b"", time.monotonic() + PATIENCE_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._bash.stdout, selectors.EVENT_READ)
            while done.encode() not in printed:
                assert selector.select(ends - time.monotonic()), f"no end of\n{command}\n{printed.decode()}"
                got = os.read(self._bash.stdout.fileno(), 65536)
                assert got, f"failed:\n{command}\n{printed.decode()}"
                printed += got
        text = printed.decode().replace("\r\n", "\n").replace(f"{done}\n", "")
        self._keep_secrets(text)
        return text

    def _keep_secrets(self, printed: str) -> None:
        self._secrets |= {secret[1]: secret[0] for secret in _TOKEN.finditer(printed)}

    def _as_here(self, text: str) -> str:
        text = text.replace("https://tidegate.example", self._admin_url).replace("$(openssl rand -hex 16)", ADMIN_TOKEN)
        text = text.replace("/tmp/", f"{self._directory}/tmp/")
        text = re.sub(r"\b(tg[a-z]?_)\.\.\.", lambda shown: self._secrets.get(shown[1], shown[0]), text)
        text = re.sub(r"^(make .*?) &", r"\1", text, flags=re.MULTILINE)
        return self._with_ports(text)

    def _with_ports(self, text: str) -> str:
        return re.sub(r"(?<=[: ])(\d{4})\b", lambda shown: str(self._ports.get(shown[1], shown[1])), text)

    def _make_clone(self) -> None:
        """What the pages name in the folder of the repository, with gateways' examples on the ports of this stack."""
        (self._directory / "tmp").mkdir(parents=True)
        (self._directory / ".tidegate-token").write_text(ADMIN_TOKEN)
        for name in ("tools", "lua", "control_plane", "data_plane", "tidegate", "testing", "pyproject.toml"):
            (self._directory / name).symlink_to(ROOT / name)
        (self._directory / ".venv").symlink_to(Path(sys.prefix))
        examples = self._directory / "docs" / "gateways"
        shutil.copytree(ROOT / "docs" / "gateways", examples)
        for file in examples.rglob("*"):
            if file.is_file() and file.suffix != ".md":
                file.write_text(BUDGET.sub(f"{BUDGET_S}s", self._with_ports(file.read_text())))


def _database(stack: Stack) -> dict[str, str]:
    """Where an administrator of the demo's Postgres finds it, as programs of Postgres read it."""
    url = stack.part("control-plane").environ()["TIDEGATE_DATABASE_URL"].replace("+asyncpg", "")
    at = urlsplit(url)
    variables = {"PGHOST": at.hostname, "PGPORT": str(at.port), "PGUSER": at.username, "PGPASSWORD": at.password}
    return {"DATABASE_URL": url, "PGDATABASE": "postgres"} | {name: value or "" for name, value in variables.items()}


def _is_whole(command: str) -> bool:
    return subprocess.run(["bash", "-n", "-c", command], capture_output=True, check=False).returncode == 0


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
        return True
    return False
