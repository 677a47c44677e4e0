"""A small HTTP server that stands behind a gateway and tells what reached it."""

import contextlib
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tidegate.stack.ports import LOOPBACK


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A gateway that resets a connection is no news."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Upstream:
    """Answers every request with its method, path and headers (lower case) as JSON, and counts them.

    ``header_list`` has every header line; ``body_bytes`` and ``body_sha256`` tell of the body. With ``X-Answer: 403``
    it answers that status.
    """

    def __init__(self) -> None:
        self.requests = 0
        self._lock = threading.Lock()
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def answer(self) -> None:
                with upstream._lock:
                    upstream.requests += 1
                received = self._body()
                lines = [(name.lower(), value) for name, value in self.headers.items()]
                told = {"method": self.command, "path": self.path, "headers": dict(lines), "header_list": lines}
                told |= {"body_bytes": len(received), "body_sha256": hashlib.sha256(received).hexdigest()}
                body = json.dumps(told).encode()
                self.send_response(int(self.headers.get("x-answer", 200)))
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_POST = do_PUT = do_HEAD = do_OPTIONS = answer  # noqa: N815 - the names that http.server looks for

            def _body(self) -> bytes:
                if self.headers.get("transfer-encoding", "").lower() != "chunked":
                    return self.rfile.read(int(self.headers.get("content-length", 0)))
                received = b""
                while size := int(self.rfile.readline(), 16):
                    received += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return received

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = _Server((LOOPBACK, 0), Handler)
        self.port = self._server.server_address[1]

    @contextlib.contextmanager
    def running(self) -> Iterator["Upstream"]:
        """Serve until the block ends."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
