"""`tidegate apply` of many clients as somebody at a terminal sees it: timed whole, with its bars."""

import contextlib
import json
import os
import pty
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from tidegate.file.document import ConfigDocument
from tidegate.stack.child import inherited_environment
from tidegate.stack.local import TIDEGATE
from tools.bench.push.place import Place, client_name

_ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]")
_BAR = re.compile(r"clients\s+\S+\s+(\d+)/(\d+)")


YAML_CLIENTS = 10_000


def write_file(path: Path, clients: int) -> None:
    """A file with one plan and so many clients, as JSON: so many come from a program, and JSON is quicker to read."""
    limits = {"hourly": {"limit": "1000/h"}}
    named = {client_name(number): {"plan": "free"} for number in range(clients)}
    path.write_text(json.dumps({"version": 1, "plans": {"free": {"limits": limits}}, "clients": named}))


def read_yaml(path: Path) -> dict[str, Any]:
    """What reading costs the command where the file is YAML that somebody wrote."""
    lines = ["version: 1", "plans:", "  free: { limits: { hourly: { limit: 1000/h } } }", "clients:"]
    lines += [f"  {client_name(number)}: {{ plan: free }}" for number in range(YAML_CLIENTS)]
    path.write_text("\n".join(lines) + "\n")
    began = time.process_time()
    ConfigDocument.from_path(path)
    return {f"reading {YAML_CLIENTS:,} clients from YAML, CPU s": time.process_time() - began}


def timed_apply(place: Place, file: Path, clients: int) -> dict[str, Any]:
    """Seconds from the command's start to its exit, and how often its bar of clients moved."""
    ours, theirs = pty.openpty()
    env = inherited_environment() | {
        "TIDEGATE_URL": place.replicas[0].url, "TIDEGATE_ADMIN_TOKEN": place.admin_token,
        "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40",
    }  # fmt: skip
    began = time.monotonic()
    process = subprocess.Popen(
        [*TIDEGATE, "apply", "-f", str(file)], stdin=theirs, stdout=theirs, stderr=theirs, env=env, close_fds=True
    )
    os.close(theirs)
    seen = bytearray()
    with contextlib.suppress(OSError):  # a terminal whose last writer is gone answers EIO
        while part := os.read(ours, 65536):
            seen += part
    code = process.wait()
    took_s = time.monotonic() - began
    os.close(ours)
    text = _ESCAPES.sub(b"", bytes(seen)).decode(errors="replace")
    if code or "created" not in text:
        raise SystemExit(f"tidegate apply ended with {code}:\n{text[-2000:]}")
    shown = {int(done) for done, of in _BAR.findall(text) if int(of) == clients}
    if clients not in shown:
        raise SystemExit(f"the bar did not get to the end:\n{text[-2000:]}")
    return {"apply: whole command, s": took_s, "apply: places of the bar that were seen": len(shown)}
