"""uvicorn's own HTTP protocol, for connections that the lane handed over: as strict as the lane, and as bounded."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from data_plane.api.lane.beat import NEVER, Beat
from data_plane.api.lane.limits import LaneLimits
from data_plane.api.lane.refusal import PROBLEM_HEADERS, Refusal, problem
from data_plane.api.lane.response import ResponseBuilder

_NEVER_TWICE = (b"host", b"content-length", b"transfer-encoding")


class SuccessorProtocol(HttpToolsProtocol):
    """Adds to llhttp's checks those that it leaves out, bounds on the head, and a time for a request to arrive."""

    expires = NEVER

    def watch(self, beat: Beat, limits: LaneLimits, responses: ResponseBuilder) -> None:
        """Call before ``connection_made``."""
        self._beat = beat
        self._limits = limits
        self._responses = responses
        self._head_bytes = 0
        self._head_ended = False
        self._refused = False
        self._refusal = Refusal(400, "The request is not HTTP/1.1 as RFC 9112 has it.")
        beat.add(self, self.loop)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._beat.remove(self)
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """From here on the connection is the WebSocket protocol's."""
        self._beat.remove(self)
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        """Begin a request's time, and count a head's bytes before llhttp has it whole."""
        if self._refused or self.transport.is_closing():
            return
        if self.expires == NEVER and (self.cycle is None or self.cycle.response_complete):
            self._expire_in(self._limits.request_s)
        self._head_ended = False
        super().data_received(data)
        self._head_bytes = 0 if self._head_ended else self._head_bytes + len(data)
        if self._head_bytes > self._limits.head_bytes:
            self._refusal = Refusal(431, f"The head is longer than {self._limits.head_bytes} bytes.")
            self.send_400_response("")

    def on_headers_complete(self) -> None:
        """Refuse what llhttp lets pass and two parsers could read in two ways."""
        self._head_ended = True
        refusal = self._objection()
        if refusal is not None:
            self._refusal = refusal
            raise refusal
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A body is not a head."""
        self._head_ended = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._head_ended = True
        self.expires = NEVER
        super().on_message_complete()

    def expire(self) -> None:
        """The request took too long to arrive, or the client had its time to read why it was refused."""
        if self._refused or (self.cycle is not None and not self.cycle.response_complete):
            self.transport.close()
            return
        self._refusal = Refusal(408, f"The request was not whole within {self._limits.request_s:g} s.")
        self.send_400_response("")

    def send_400_response(self, msg: str) -> None:
        """Answer with a problem and close; never in the middle of an answer, or before an earlier one."""
        del msg
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        self._expire_in(self._limits.linger_s)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:  # what is wrong is the next request: let this one be answered
                cycle.keep_alive = False
                self.expires = NEVER
                return
            if cycle.response_started or self.pipeline:
                self.transport.close()
                return
        status = self._refusal.status
        body = problem(status, self._refusal.detail)
        self.transport.write(
            self._responses.build_special(status, PROBLEM_HEADERS, body, close=True, old=False, bodiless=False)
        )
        if cycle is not None:
            cycle.disconnected = True
            cycle.message_event.set()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _objection(self) -> Refusal | None:
        names = [name for name, _ in self.headers]
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        version = self.parser.get_http_version()
        if size > self._limits.head_bytes or len(names) > self._limits.header_fields:
            return Refusal(431, "The head is too long.")
        if any(names.count(name) > 1 for name in _NEVER_TWICE):
            return Refusal(400, "A header field that frames the request is there twice.")
        if version not in ("1.1", "1.0"):
            return Refusal(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        if version == "1.1" and b"host" not in names:
            return Refusal(400, "The Host header field is missing.")
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if codings and (version == "1.0" or codings[0].lower() != b"chunked"):
            return Refusal(501, "The only transfer coding here is chunked, in HTTP/1.1.")
        return None

    def _expire_in(self, seconds: float) -> None:
        self.expires = self._beat.tick + self._beat.ticks(seconds)
