"""Unary calls of gRPC: what is answered to what is none, and by which status (grpc/grpc, doc/statuscodes.md)."""

import hpack
import pytest
from structlog.testing import capture_logs

from data_plane.rls.frames import DATA, END_STREAM, HEADERS, NO_ERROR
from data_plane.rls.grpc import GrpcCall, GrpcHandler
from data_plane.rls.http2 import Http2Connection
from tests.unit.rls.harness import Peer, block, call, data, echoed, headers, literal, message, reset_codes


def answer(got, stream):
    """Header fields of an answer, trailers among them, and its body."""
    fields, body = {}, b""
    decoder = hpack.Decoder()
    for one in got:
        if one.stream == stream and one.kind == HEADERS:
            fields |= dict(decoder.decode(one.payload))
        elif one.stream == stream and one.kind == DATA:
            body += one.payload
    return fields, body


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (block((":path", "/test.Service/Other")), "12"),
        (block(("grpc-encoding", "gzip")), "12"),
        (block(("grpc-timeout", "soon")), "13"),
        (block(("grpc-timeout", "123456789S")), "13"),
    ],
)
def test_what_cannot_be_called_is_said_before_the_request_ends(head, status):
    """Reflection and health's Watch send a message, and wait for an answer to it."""
    peer = Peer()
    got = peer.send(headers(1, head), data(1, message(b"m"), ends=False))
    fields, body = answer(got, 1)
    assert (fields[":status"], fields["grpc-status"], body) == ("200", status, b"")
    assert reset_codes(got) == {1: NO_ERROR}
    assert peer.send(data(1, message(b"n"))) == []
    assert echoed(peer.send(call(3))) == {3: b"hello"}


def test_compression_is_refused_with_what_is_taken():
    fields, _ = answer(Peer().send(call(1, head=block(("grpc-encoding", "gzip")))), 1)
    assert (fields["grpc-status"], fields["grpc-accept-encoding"]) == ("12", "identity")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (block(("content-type", "application/json")), "415"),
        (block(("content-type", "application/grpc-web")), "415"),
        (block(leave_out="content-type"), "415"),
        (block((":method", "GET")), "405"),
    ],
)
def test_who_does_not_speak_grpc_is_told_so_by_http(head, status):
    fields, body = answer(Peer().send(call(1, head=head)), 1)
    assert (fields[":status"], int(fields["content-length"])) == (status, len(body))


def test_subtypes_and_parameters_of_the_content_type_are_fine():
    for content_type in ("application/grpc+proto", "application/grpc; charset=utf-8"):
        assert echoed(Peer().send(call(1, head=block(("content-type", content_type))))) == {1: b"hello"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", "12"), (b"\0\0", "12"), (message(b"ab") + message(b"c"), "12"), (message(b"ab")[:-1], "12"),
        (b"\1" + message(b"ab")[1:], "13"), (b"\0\xff\xff\xff\xff", "12"),
    ],
)  # fmt: skip
def test_one_whole_message_is_wanted(body, status):
    fields, _ = answer(Peer().send(headers(1), data(1, body)), 1)
    assert fields["grpc-status"] == status


def test_a_message_has_a_size():
    peer = Peer()
    parts = [message(b"x" * 65_536)[at : at + 16_384] for at in range(0, 65_541, 16_384)]
    got = peer.send(headers(1), *(data(1, part, ends=part is parts[-1]) for part in parts))
    assert sum(len(one.payload) for one in got if one.kind == DATA) == 65_535, "our answer waits for the window"
    parts = [message(b"x" * 65_537)[at : at + 16_384] for at in range(0, 65_542, 16_384)]
    got = peer.send(headers(3), *(data(3, part, ends=part is parts[-1]) for part in parts))
    assert answer(got, 3)[0]["grpc-status"] == "8"
    assert peer.served == 1


def test_a_deadline_that_has_passed_is_not_worth_a_decision():
    peer = Peer()
    fields, _ = answer(peer.send(call(1, head=block(("grpc-timeout", "0m")))), 1)
    assert (fields["grpc-status"], peer.served) == ("4", 0)


def test_a_mistake_costs_one_call_and_is_logged():
    handler = GrpcHandler({b"/test.Service/Echo": lambda *_: 1 // 0}, GrpcCall, 100)
    peer = Peer()
    peer.connection = Http2Connection(handler, peer.connection.limits, lambda: None)
    peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\4\0\0\0\0\0")
    with capture_logs() as lines:
        got = peer.send(call(1), call(3))
    assert {answer(got, stream)[0]["grpc-status"] for stream in (1, 3)} == {"13"}
    assert [line["event"] for line in lines] == ["call_failed"] * 2


def test_status_messages_are_text_that_a_header_can_hold():
    peer = Peer(answers=False)
    peer.send(call(1))
    peer.waiting[0][0].fail(3, "50% Ärger\n" + "x" * 5_000)
    fields, _ = answer(peer.take(), 1)
    assert fields["grpc-message"].startswith("50%25 %C3%84rger%0Axx")
    assert len(fields["grpc-message"]) < 1_100


def test_trailers_end_the_answer():
    got = Peer().send(call(1))
    assert [one.flags & END_STREAM for one in got] == [0, 0, END_STREAM]
    assert got[-1].payload == literal(("grpc-status", "0"))
