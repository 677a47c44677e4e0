"""What is no Tidegate may listen at a URL: commands say so in a line, with the exit code of no answer."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from tidegate.cli import app

ANSWERS = {"/list": (200, b"[1]"), "/object": (200, b'{"a": 1}'), "/text": (200, b"hello"),
           "/errors": (400, b'{"errors": ["odd"], "detail": "no"}'), "/null": (500, b"null")}  # fmt: skip
NO_ANSWER = {"check": 2, "top": 1, "diff": 1, "apply": 1, "export": 1}


class _Stranger(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = ANSWERS["/" + self.path.split("/")[1]]
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_GET  # noqa: N815 - as http.server calls them

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    """The URL of a server that is something else."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Stranger) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("command", ["clients list", "revisions diff 3"])
def test_a_stranger_has_no_lists(command: str, stranger: str) -> None:
    for path in ANSWERS:
        result = CliRunner().invoke(
            app, [*command.split(), "--url", stranger + path], env={"TIDEGATE_ADMIN_TOKEN": "x" * 20}
        )
        assert isinstance(result.exception, SystemExit), (path, result.exception)
        assert (result.exit_code, result.stdout) == (1, ""), path
        assert result.stderr.strip()


@pytest.mark.parametrize("command", NO_ANSWER)
def test_a_stranger_is_no_answer(command: str, stranger: str, tmp_path) -> None:
    file = tmp_path / "tidegate.yaml"
    file.write_text("version: 1\n")
    arguments = {"top": ["--once"], "diff": ["-f", str(file)], "apply": ["-f", str(file)]}.get(command, [])
    for path in ANSWERS:
        result = CliRunner().invoke(
            app, [command, "--url", stranger + path, *arguments], env={"TIDEGATE_ADMIN_TOKEN": "x" * 20}
        )
        assert isinstance(result.exception, SystemExit), (path, result.exception)
        assert result.exit_code == NO_ANSWER[command], (path, result.output)
        assert result.output.strip()
