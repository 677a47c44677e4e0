"""`helm test`: its pod is new, and network policies let it reach nobody for a moment."""

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tests.charts.rendering import CHARTS
from tidegate.stack.ports import free_ports


class Service(BaseHTTPRequestHandler):
    """Answers as a node does, and as the control plane."""

    def do_POST(self):
        """A decision."""
        self._answer(200, {"allowed": True, "region": "us-east", "degraded": False})

    def do_GET(self):
        """Ready, and closed."""
        self._answer(200 if self.path == "/readyz" else 401, {})

    def _answer(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.mark.parametrize(
    ("program", "expected"), [("data-plane/files/decides.py", "us-east"), ("control-plane/files/ready.py", "401")]
)
def test_who_is_refused_at_first_is_asked_again(program, expected):
    [port] = free_ports(1)
    command = [sys.executable, str(CHARTS / program), f"http://127.0.0.1:{port}", expected]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(2)  # nobody listens yet
        with HTTPServer(("127.0.0.1", port), Service) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            assert child.wait(30) == 0
            server.shutdown()
