"""Unary calls of gRPC over HTTP/2: which method a head means, messages in their frames, statuses in trailers.

Protocol: grpc/grpc, doc/PROTOCOL-HTTP2.md and doc/statuscodes.md.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import structlog
from hpack.hpack import encode_integer

from data_plane.rls.headers import Head
from data_plane.rls.sending import HeaderFrame, Stream

log = structlog.get_logger()

INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND = 3, 4, 5
RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL, UNAUTHENTICATED = 8, 12, 13, 16
PREFIX_BYTES: Final = 5
"""The prefix of a message: whether it is compressed, and its length."""
_CONTENT_TYPE: Final = re.compile(rb"application/grpc(\Z|[+;])")
_TIMEOUT: Final = re.compile(rb"(\d{1,8})([HMSmun])")
_UNIT_US: Final = {b"H": 3_600_000_000, b"M": 60_000_000, b"S": 1_000_000, b"m": 1_000, b"u": 1, b"n": 0.001}
_MALFORMED: Final = -1
_MAX_STATUS_MESSAGE: Final = 1_024
_UNSAFE: Final = re.compile(rb"[^\x20-\x24\x26-\x7e]")
_STATUS_200: Final = b"\x88"
_ONE_MESSAGE: Final = "one message is wanted, in one frame of its own"


def _field(name: bytes, value: bytes) -> bytes:
    """A header field that changes no compression table."""
    return b"\0%b%b%b%b" % (bytes(encode_integer(len(name), 7)), name, bytes(encode_integer(len(value), 7)), value)


_GRPC: Final = _STATUS_200 + _field(b"content-type", b"application/grpc")
OPENING: Final = HeaderFrame.of(_GRPC, ends=False)
CLOSING: Final = HeaderFrame.of(_field(b"grpc-status", b"0"), ends=True)


class GrpcCall(Stream):
    """One call; its method answers once, by ``reply`` or ``fail``."""

    __slots__ = ()

    def reply(self, message: bytes) -> None:
        """Answer with a message; ignored if the client is gone."""
        self.connection.respond(self, OPENING, b"\0%b%b" % (len(message).to_bytes(4), message), CLOSING)

    def fail(self, status: int, message: str) -> None:
        """Answer with a status and no message."""
        self.connection.respond_empty(self, _trailers_only(status, message))


Method = Callable[[Any, bytes], None]
"""Takes a call and its message."""


class Meaning(NamedTuple):
    """The meaning of a head: a method, or the answer to send instead."""

    method: Method | None
    refuse: Callable[[GrpcCall], None] | None
    timeout_us: int | None


class GrpcHandler:
    """Passes calls to ``methods`` by path. An exception costs one call."""

    def __init__(self, methods: Mapping[bytes, Method], call_type: type[GrpcCall], max_message_bytes: int) -> None:
        self.stream_type: type[Stream] = call_type
        self._methods = methods
        self._max_message_bytes = max_message_bytes

    def understand(self, head: Head) -> None:
        """Find the method of a head."""
        fields = dict(head.fields)
        method = self._methods.get(head.path)
        is_grpc = _CONTENT_TYPE.match(fields.get(b"content-type", b"")) is not None
        timeout = fields.get(b"grpc-timeout")
        timeout_us = None if timeout is None else _timeout_us(timeout)
        refuse = None
        if not is_grpc:
            refuse = _by_http(b"415", b"gRPC is spoken here: content-type: application/grpc\n")
        elif head.method != b"POST":
            refuse = _by_http(b"405", b"gRPC is spoken here: POST\n")
        elif fields.get(b"grpc-encoding", b"identity") != b"identity":
            accepted = (b"grpc-accept-encoding", b"identity")
            refuse = _by_status(UNIMPLEMENTED, "messages are not compressed here", accepted)
        elif method is None:
            refuse = _by_status(UNIMPLEMENTED, f"unknown method {head.path[:128].decode('latin-1')}")
        elif timeout_us == _MALFORMED:
            refuse = _by_status(INTERNAL, "malformed grpc-timeout")
        head.meaning = Meaning(method, refuse, timeout_us)
        # gRPC clients may read an answer before their request ends; others send their whole request first
        head.answered_early = refuse is not None and is_grpc

    def serve(self, calls: Sequence[GrpcCall]) -> None:
        """Answer calls, now or later."""
        for call in calls:
            meaning: Meaning = call.head.meaning
            body = call.body
            if body:
                call.body = b""  # counted no more: calls in flight keep none (None: it has not ended)
            try:
                if meaning.refuse is not None or meaning.method is None:
                    if meaning.refuse is not None:
                        meaning.refuse(call)
                elif meaning.timeout_us == 0:
                    call.fail(DEADLINE_EXCEEDED, "the deadline has passed")
                elif body is None or len(body) < PREFIX_BYTES or int.from_bytes(body[1:5]) != len(body) - PREFIX_BYTES:
                    call.fail(UNIMPLEMENTED, _ONE_MESSAGE)
                elif body[0]:
                    call.fail(INTERNAL, "a message is compressed, and grpc-encoding does not say how")
                else:
                    meaning.method(call, body[PREFIX_BYTES:])
            except Exception:  # a boundary: a bug costs one call, not its neighbours
                log.exception("call_failed", path=call.head.path.decode("latin-1"))
                call.fail(INTERNAL, "the node failed to answer")

    def refuse_large(self, call: GrpcCall) -> None:
        """Answer a call whose message is too large."""
        call.fail(RESOURCE_EXHAUSTED, f"a message may have {self._max_message_bytes} bytes")


def _by_http(status: bytes, text: bytes) -> Callable[[GrpcCall], None]:
    """The answer to a client without gRPC: an HTTP status and a line of text."""
    head = b"\x08\x03" + status + _field(b"content-type", b"text/plain") + _field(b"content-length", b"%d" % len(text))
    opening, closing = HeaderFrame.of(head, ends=False), HeaderFrame.of(_field(b"grpc-status", b"2"), ends=True)
    return lambda call: call.connection.respond(call, opening, text, closing)


def _by_status(status: int, message: str, *fields: tuple[bytes, bytes]) -> Callable[[GrpcCall], None]:
    frame = _trailers_only(status, message, *fields)
    return lambda call: call.connection.respond_empty(call, frame)


def _trailers_only(status: int, message: str, *fields: tuple[bytes, bytes]) -> HeaderFrame:
    encoded = _UNSAFE.sub(lambda found: b"%%%02X" % found[0][0], message.encode()[:_MAX_STATUS_MESSAGE])
    said = (*fields, (b"grpc-status", b"%d" % status), (b"grpc-message", encoded))
    return HeaderFrame.of(_GRPC + b"".join(_field(*field) for field in said), ends=True)


def _timeout_us(value: bytes) -> int:
    found = _TIMEOUT.fullmatch(value)
    return _MALFORMED if found is None else int(int(found[1]) * _UNIT_US[found[2]])
