"""Header blocks are read as the package `hpack` reads them, and remembered for no longer than they mean the same."""

import re

import hpack
import pytest
from hpack.exceptions import HPACKError
from hypothesis import given, settings
from hypothesis import strategies as st

from data_plane.rls.compression import CompressionError, FieldDecoder, ListTooLongError
from data_plane.rls.frames import PROTOCOL_ERROR, Http2Limits
from data_plane.rls.headers import HeaderReader, MalformedError
from testing.effort import examples
from tests.unit.rls.harness import Peer, block, call, echoed, headers, indexed, literal, reset_codes

names = st.sampled_from([":method", ":path", "grpc-timeout", "content-type", "x-a", "x-b", "cookie"])
values = st.one_of(st.sampled_from(["", "POST", "1m", "v" * 200]), st.text("abc!~019", max_size=40))
lists = st.lists(st.tuples(names, values, st.booleans()), max_size=12)
sizes = st.one_of(st.none(), st.integers(0, 4_096))


@given(st.lists(st.tuples(lists, sizes, st.booleans()), min_size=1, max_size=12))
def test_blocks_of_another_encoder_are_read_as_it_meant_them(sent):
    encoder, decoder = hpack.Encoder(), FieldDecoder(1 << 20)
    for fields, size, huffman in sent:
        if size is not None:
            encoder.header_table_size = size
        whole = encoder.encode(
            [hpack.NeverIndexedHeaderTuple(name, value) if never else (name, value) for name, value, never in fields],
            huffman=huffman,
        )
        assert decoder.decode(whole) == [(name.encode(), value.encode()) for name, value, _ in fields]


@settings(max_examples=examples(100))
@given(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
def test_any_bytes_are_read_or_refused_as_by_the_other_decoder(blocks):
    ours, theirs = FieldDecoder(1 << 16), hpack.Decoder(1 << 16)
    for whole in blocks:
        try:
            expected = [(bytes(name), bytes(value)) for name, value in theirs.decode(whole, raw=True)]
        except (HPACKError, IndexError):
            with pytest.raises(CompressionError):
                ours.decode(whole)
            return
        if re.search(rb"[\x80-\xff]{4}", whole):
            return  # the other reads numbers of any length
        assert ours.decode(whole) == expected


def test_a_list_beyond_its_bound_is_not_read_to_its_end():
    with pytest.raises(ListTooLongError):
        FieldDecoder(1_000).decode(b"\x82" * 5_000_000)


def test_a_block_is_remembered_until_the_table_changes():
    reader, encoder = HeaderReader(Http2Limits()), hpack.Encoder()
    first = indexed(encoder, ("x-one", "1"))
    assert reader.read(first) is not None
    assert reader.known == {}, "it changed the table"
    again = indexed(encoder, ("x-one", "1"))
    head = reader.read(again)
    assert reader.read(again) is head
    assert set(reader.known) == {again}
    other = indexed(encoder, ("x-two", "2"))
    assert (b"x-two", b"2") in reader.read(other).fields
    assert reader.known == {}
    moved = indexed(encoder, ("x-one", "1"))
    assert moved != again
    assert reader.read(moved).fields == head.fields


def test_the_same_bytes_mean_another_thing_after_the_table_has_changed():
    peer = Peer()
    path = b"\x44" + bytes((len("/test.Service/Echo"),)) + b"/test.Service/Echo"
    rest = b"\x83\x86\xbe" + literal(("content-type", "application/grpc"))
    assert set(echoed(peer.send(call(1, head=b"\x83\x86" + path + literal(("content-type", "application/grpc")))))) == {
        1
    }
    assert set(echoed(peer.send(call(3, head=rest)))) == {3}
    assert rest in peer.connection.reader.known
    # what was at the first place of the table is at the second now
    peer.send(call(5, head=block() + b"\x40\x03x-a\x011"))
    assert reset_codes(peer.send(call(7, head=rest))) == {7: PROTOCOL_ERROR}
    assert set(echoed(peer.send(call(9, head=rest.replace(b"\xbe", b"\xbf"))))) == {9}


@pytest.mark.parametrize(
    "head",
    [
        block(leave_out=":method"), block(leave_out=":path"), block(leave_out=":scheme"), block((":path", "")),
        block() + literal((":authority", "late")), block() + literal((":status", "200")),
        literal((":method", "POST")) + block(), block(("Upper", "x")), block(("na me", "x")), block(("x", "a\nb")),
        block(("x", "a\0b")), block(("x", " a")), block(("x", "a\t")), block(("connection", "close")),
        block(("transfer-encoding", "chunked")), block(("upgrade", "h2c")), block(("te", "gzip")),
        block(("content-length", "-1")), block(("content-length", "9" * 19)), block(("content-length", "1_0")),
        block(("content-length", "1")) + literal(("content-length", "2")),
    ],
)  # fmt: skip
def test_what_is_no_request_is_an_error_of_its_stream_alone(head):
    peer = Peer()
    for stream in (1, 3):
        assert reset_codes(peer.send(headers(stream, head))) == {stream: PROTOCOL_ERROR}
    assert echoed(peer.send(call(5))) == {5: b"hello"}
    reader = HeaderReader(Http2Limits())
    with pytest.raises(MalformedError):
        reader.read(head)


def test_a_content_length_holds_for_the_body():
    peer = Peer()
    assert echoed(peer.send(call(1, head=block(("content-length", "10"))))) == {1: b"hello"}
    assert reset_codes(peer.send(call(3, head=block(("content-length", "11"))))) == {3: PROTOCOL_ERROR}
    assert peer.served == 1
