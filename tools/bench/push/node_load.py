"""What one node needs for a configuration: run as a program of its own, it loads and says what that took."""

import json
import resource
import sys
import time
from pathlib import Path

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

import data_plane.node  # noqa: F401  what a node has loaded counts
from data_plane.config.stream import ConfigService
from tidegate.contract.config import Commit, StreamMessage


def main() -> None:
    """Read url, region, public key from the arguments and the credential from stdin; print figures as JSON."""
    url, region, public_key = sys.argv[1:4]
    credential = sys.stdin.read()
    service = ConfigService("loader", region, Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)),
                            lambda _index, _snapshot: None)  # fmt: skip
    before_mb = _rss_mb()
    decoder = msgspec.json.Decoder(StreamMessage)
    headers = {"authorization": f"Bearer {credential}"}
    began, cpu_began = time.monotonic(), time.process_time()
    with httpx.stream("GET", f"{url}/internal/v1/stream", params={"node": "loader", "region": region},
                      headers=headers, trust_env=False, timeout=60.0) as response:  # fmt: skip
        rest = b""
        for chunk in response.iter_bytes():
            *lines, rest = (rest + chunk).split(b"\n")
            committed = False
            for line in lines:
                message = decoder.decode(line)
                ack = service.receive(message)
                if ack is not None and ack.error:
                    raise SystemExit(ack.error)
                committed = committed or isinstance(message, Commit)
            if committed:
                break
    figures = {
        "wall_s": time.monotonic() - began,
        "cpu_s": time.process_time() - cpu_began,
        "before_mb": before_mb,
        "rss_mb": _rss_mb(),
        "peak_mb": _peak_mb(),
    }
    print(json.dumps(figures))


def _peak_mb() -> float:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1.024 / 1_000  # the kernel says kB and means KiB


def _rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


if __name__ == "__main__":
    main()
