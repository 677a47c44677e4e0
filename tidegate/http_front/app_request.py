"""One request that the ASGI application answers: its body as it comes, its response as it is made.

The application is held back where the client takes its answer slowly, the client where the application reads slowly.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.flow_control import FlowControl

from tidegate.http_front.chunked import ChunkedBody
from tidegate.http_front.exchange import Exchange, Head
from tidegate.http_front.limits import FrontLimits
from tidegate.http_front.responses import PROBLEM_HEADERS, ResponseBuilder, persistence, problem

if TYPE_CHECKING:
    from tidegate.http_front.connection import Connection

Message = Any
Scope = dict[str, Any]
Application = Callable[[Any, Any, Any], Awaitable[None]]
"""ASGI's own types, which nobody publishes."""

log = logging.getLogger("tidegate.front")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_ASGI = {"version": "3.0", "spec_version": "2.3"}


class AppRequest(Exchange):
    """Alone on its connection, in whose queue it stands. ``asker`` is ``None`` once the client has left."""

    __slots__ = (
        "_chunks",
        "_hung_up",
        "_left",
        "_limits",
        "_owes_continue",
        "_paced",
        "_responses",
        "_told_whole",
        "_transport",
        "_wake",
        "_writes_chunks",
        "_writes_left",
        "body_whole",
        "complete",
        "connection",
        "flow",
        "received",
        "started",
        "unread",
    )  # fmt: skip

    def __init__(
        self,
        connection: "Connection",
        head: Head,
        transport: asyncio.Transport,
        limits: FrontLimits,
        responses: ResponseBuilder,
    ) -> None:
        self.asker = self.connection = connection
        self.head = head
        self.body = b""
        self.waiting = None
        self.flow = FlowControl(transport)
        self.received = self._paced = 0
        """Bytes of the body so far, and when its pace was last looked at."""
        self.started = self.complete = False
        """How far the response is."""
        self.body_whole = not head.chunked and not head.length
        self._transport = transport
        self._limits = limits
        self._responses = responses
        self._chunks = ChunkedBody(limits.body_bytes) if head.chunked else None
        self._left = head.length
        self.unread = bytearray()
        self._wake = asyncio.Event()
        self._told_whole = self._hung_up = False
        self._owes_continue = head.expects_continue and not self.body_whole
        self._writes_chunks = False
        self._writes_left: int | None = None

    # What the connection calls

    def take(self, data: bytes, start: int) -> int:
        """Take what is there of the body from ``start``; returns where it stopped. Raises ``Refusal``."""
        if self.body_whole:
            return start
        if self._chunks is not None:
            end = self._chunks.feed(data, start)
            self.unread += self._chunks.body
            self._chunks.body.clear()
            self.body_whole = self._chunks.complete
        else:
            end = min(len(data), start + self._left)
            self.unread += data[start:end]
            self._left -= end - start
            self.body_whole = not self._left
        if end > start:
            self._owes_continue = False
            self.received += end - start
            self._wake.set()
        if self.body_whole:
            self.flow.resume_reading()  # to notice when the client leaves
        elif len(self.unread) > self._limits.app_unread_bytes:
            self.flow.pause_reading()
        return end

    def keeps_pace(self) -> bool:
        """Whether the body came fast enough since this was last asked, or waits for the application."""
        wanted = self._limits.body_bytes_a_s * self._limits.request_s
        came, self._paced = self.received - self._paced, self.received
        return self.flow.read_paused or came >= wanted

    def hang_up(self) -> None:
        """The client sends no more: whoever waits for it to leave is notified, but may answer."""
        self._hung_up = True
        self._wake.set()

    def lose(self) -> None:
        """The client has left."""
        self.asker = None
        self._wake.set()
        self.flow.resume_writing()

    # What the application calls

    async def run(self, application: Application, scope: Scope) -> None:
        """Have it answered. Whatever the application does, the connection ends well."""
        try:
            await application(scope, self.receive, self.send)
        except ClientDisconnect:
            pass  # nobody is left to be answered
        except asyncio.CancelledError:
            self.connection.abort()  # the server had no more time
            self.lose()
            raise
        except Exception:
            log.exception("the application failed on %s %s", scope["method"], scope["path"])
        finally:
            if not self.complete and self.asker is not None:
                await self._fail()

    async def receive(self) -> Message:
        """The next part of the body, or that the client has left."""
        if self._owes_continue and self.asker is not None:
            self._owes_continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while self.asker is not None and not self.complete:
            if self.unread or (self.body_whole and not self._told_whole):
                body = bytes(self.unread)
                self.unread.clear()
                self._told_whole = self.body_whole
                self.flow.resume_reading()
                return {"type": "http.request", "body": body, "more_body": not self.body_whole}
            if self._hung_up:
                break
            self._wake.clear()
            await self._wake.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """The beginning of the response or a part of its body. Waits for a client that takes it slowly."""
        if self.flow.write_paused:
            await self.flow.drain()
        if self.asker is None:
            return
        if self.complete or message["type"] != ("http.response.body" if self.started else "http.response.start"):
            raise RuntimeError(f"the application sent {message['type']} out of turn")
        if self.started:
            self._send_body(message.get("body", b""), more=message.get("more_body", False))
        else:
            self._send_head(message["status"], message.get("headers", ()))

    def _send_head(self, status: int, headers: Any) -> None:
        lines, length, close = [], None, False
        for name, value in headers:
            if not _NAME.fullmatch(name) or _CONTROL.search(value):
                raise RuntimeError("the application sent a header that is none")
            lower = name.lower()
            if lower == b"content-length":
                length = int(value)
            elif lower == b"connection":
                close = close or b"close" in value.lower()
            elif lower not in {b"transfer-encoding", b"date"}:  # both are written here
                lines.append(b"%b: %b\r\n" % (lower, value))
        old = self.head.old
        without_body = status in {204, 304}
        if length is not None and status != 204:
            lines.append(b"content-length: %d\r\n" % length)
        elif not without_body and not old:
            self._writes_chunks = not self.head.bodiless
            lines.append(b"transfer-encoding: chunked\r\n" if self._writes_chunks else b"")
        elif not without_body:
            close = True  # the end of the connection is the end of the body
        if self.head.bodiless or without_body:
            length = 0
        # A body that the application did not wait for is not read to its end: nobody knows how much is to come.
        stays = self.connection.keep_for(self, last=close or not self.body_whole)
        self._writes_left = length
        self.started = True
        self._owes_continue = False
        lines.append(persistence(close=not stays, old=old))
        self._transport.write(self._responses.begin(status) + b"".join(lines) + b"\r\n")

    def _send_body(self, body: bytes, *, more: bool) -> None:
        if self.head.bodiless:
            body = b""
        if self._writes_chunks:
            part = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            self._write(part if more else part + b"0\r\n\r\n")
        else:
            if self._writes_left is not None:
                self._writes_left -= len(body)
                if self._writes_left < 0 or (self._writes_left and not more):
                    raise RuntimeError("the response is not as long as its Content-Length says")
            self._write(body)
        if not more:
            self.complete = True
            self._wake.set()
            self.connection.app_answered(self)

    def _write(self, data: bytes) -> None:
        if data:
            self._transport.write(data)

    async def _fail(self) -> None:
        if self.started:  # half an answer: the client must see that it is none
            self.connection.abort()
            return
        body = problem(500, "The request could not be answered.")
        headers = [tuple(line.split(b": ", 1)) for line in PROBLEM_HEADERS.split(b"\r\n") if line]
        length = (b"content-length", b"%d" % len(body))
        await self.send({"type": "http.response.start", "status": 500, "headers": [*headers, length]})
        await self.send({"type": "http.response.body", "body": body})


def scope_of(head: Head, transport: asyncio.Transport, root_path: str, state: dict[str, Any]) -> Scope:
    """The ASGI scope of a request (specification 2.3)."""
    target = head.target
    if not target.startswith(b"/") and b"://" in target:  # http://host/path: the path is meant (RFC 9112, 3.2.2)
        rest = target.partition(b"://")[2]
        target = rest[len(re.split(rb"[/?]", rest, maxsplit=1)[0]) :]
        target = target if target.startswith(b"/") else b"/" + target
    raw_path, _, query = target.partition(b"?")
    path = raw_path.decode("ascii")
    return {
        "type": "http",
        "asgi": _ASGI,
        "http_version": "1.0" if head.old else "1.1",
        "method": head.method.decode("ascii"),
        "scheme": "http" if transport.get_extra_info("sslcontext") is None else "https",
        "path": root_path + (unquote(path) if "%" in path else path),
        "raw_path": root_path.encode() + raw_path,
        "query_string": query,
        "root_path": root_path,
        "headers": list(head.fields),
        "server": _address(transport.get_extra_info("sockname")),
        "client": _address(transport.get_extra_info("peername")),
        "state": state.copy(),
    }


def _address(name: Any) -> tuple[str, int] | None:
    return (str(name[0]), int(name[1])) if isinstance(name, (tuple, list)) else None
