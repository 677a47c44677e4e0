"""The conformance suite of HTTP/2, h2spec, finds no failure in generic, http2 and hpack, plain and over TLS."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from data_plane.process import TlsFiles
from data_plane.rls.grpc import GrpcCall, GrpcHandler
from data_plane.rls.server import serving_rls
from testing.certificates import certificate
from testing.go_tools import go_tool

MOST_TESTS = 145
TIMEOUT_S = 100


def echo(call: GrpcCall, message: bytes) -> None:
    call.reply(message)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_h2spec_finds_nothing(secure: bool, tmp_path: Path, capsys) -> None:
    program = go_tool("h2spec")
    tls = TlsFiles(*certificate(tmp_path), None) if secure else None
    handler = GrpcHandler({b"/test.Service/Echo": echo}, GrpcCall, 65_536)
    async with serving_rls(handler, "127.0.0.1", 0, tls) as port:
        process = await asyncio.create_subprocess_exec(
            program, "--host", "localhost" if secure else "127.0.0.1", "--port", str(port), "--timeout", "5",
            *(["--tls", "--insecure"] if secure else []), "generic", "http2", "hpack",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(TIMEOUT_S):
            output = (await process.communicate())[0].decode()
    summary = re.search(r"^(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed$", output, re.MULTILINE)
    assert summary is not None, output[-3_000:]
    with capsys.disabled():
        sys.stdout.write(f"\nh2spec, {'TLS' if secure else 'plain'}: {summary[0]}\n")
    assert summary.groups() == (str(MOST_TESTS), str(MOST_TESTS), "0", "0"), output[output.find("Failures") :]
