"""Whatever comes in: splits change nothing, garbage ends well, and what the front accepts llhttp reads the same way."""

import contextlib
import logging
import random

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from testing.effort import SEED, examples, share
from tests.unit.http_front import fuzz
from tests.unit.http_front.harness import SMALL, Client, DoorPath, EchoDoor, SavingDoor, get, post
from tests.unit.http_front.requests_table import REFUSED
from tidegate.http_front.head import HeadParser
from tidegate.http_front.limits import FrontLimits
from tidegate.http_front.responses import Refusal

INPUTS = share(ci=700, nightly=500_000)

pipelines = st.lists(st.sampled_from([request for request in fuzz.GOOD if b"100-continue" not in request]), max_size=8)


@given(pipelines, st.data())
@settings(max_examples=examples(100))
def test_splits_change_nothing(requests: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(requests)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = Client(EchoDoor()).send(stream)
    assert Client(EchoDoor()).send(*filter(None, parts)).transport.sent == whole.transport.sent


@given(
    st.lists(st.sampled_from([post(), post(b"/v1/check/batch", b"[]"), get(), fuzz.CHUNKED]), max_size=12), st.data()
)
@settings(max_examples=examples(100))
def test_the_order_of_decisions_changes_nothing(requests: list[bytes], data: st.DataObject) -> None:
    handler = SavingDoor()
    client = Client(handler).send(b"".join(requests))
    answered = 0
    while handler.exchanges:
        exchange = handler.exchanges.pop(data.draw(st.integers(0, len(handler.exchanges) - 1)))
        exchange.respond(200, b"", exchange.method + exchange.path + exchange.body)
        answered += 1
    assert answered == len(requests)
    at_once = Client(EchoDoor()).send(b"".join(requests)).responses()
    assert [response.body for response in client.responses()] == [r.body.replace(b" ", b"") for r in at_once]


@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from(fuzz.MORSELS + fuzz.CORPUS)), max_size=10))
@settings(max_examples=examples(100))
def test_garbage_ends_well(parts: list[bytes]) -> None:
    client = Client(EchoDoor()).send(*parts)
    client.pass_s(SMALL.request_s + SMALL.linger_s + 1)
    client.pass_s(SMALL.keep_alive_s + 1)
    assert client.transport.closing
    assert Client(EchoDoor(), front=client.front).send(post()).statuses() == [200]


@pytest.mark.parametrize("seed", [SEED + 11, SEED + 12])
def test_mutated_streams_end_well(seed: int) -> None:
    logging.disable(logging.CRITICAL)
    try:
        statuses = fuzz.run(INPUTS, seed)
    finally:
        logging.disable(logging.NOTSET)
    assert statuses[200] > INPUTS / 10
    assert statuses[400] > INPUTS / 10


class _Llhttp:
    """What llhttp reads."""

    def __init__(self, raw: bytes) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.ended = False
        parser = httptools.HttpRequestParser(self)
        with contextlib.suppress(httptools.HttpParserUpgrade):
            parser.feed_data(raw)
        self.method = parser.get_method()
        self.version = parser.get_http_version()

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.ended = True


def assert_as_strict_as_llhttp(raw: bytes) -> bool:
    """Whether the front takes this head. If so llhttp takes it too and reads the same, but for what is named below."""
    try:
        head = HeadParser(FrontLimits(), DoorPath(EchoDoor())).parse(raw)
    except Refusal:
        return False
    try:
        theirs = _Llhttp(raw)
    except httptools.HttpParserInvalidMethodError:
        return True  # llhttp knows a list of methods; any token is a method (RFC 9110, section 9.1)
    except httptools.HttpParserInvalidURLError:
        assert head.target.translate(None, bytes(range(0x21, 0x7F))) or b"#" in head.target or b"://" in head.target
        return True  # targets that a careless client sends: the handler refuses them, uvicorn never sees them accepted
    assert theirs.ended
    assert (theirs.method, theirs.target, tuple(theirs.fields)) == (head.method, head.target, head.fields)
    assert theirs.version == ("1.0" if head.old else "1.1")
    return True


lines = st.one_of(
    st.sampled_from([b"GET /a HTTP/1.1", b"POST /v1/check HTTP/1.1", b"GET /a HTTP/1.0", b"OPTIONS * HTTP/1.1"]),
    st.binary(max_size=20).map(lambda part: b"GET /" + part + b" HTTP/1.1"),
    st.binary(max_size=30),
)
fields = st.one_of(
    st.sampled_from([b"Host: a", b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Connection: close", b" x"]),
    st.tuples(st.binary(max_size=6), st.sampled_from([b":", b": ", b":\t"]), st.binary(max_size=8)).map(b"".join),
    st.from_regex(rb"[A-Za-z0-9!#-]{1,8}:[ \t]?[ -~\t]{0,12}", fullmatch=True),
)
heads = st.builds(
    lambda line, rest: b"\r\n".join([line, b"Host: node", *rest]) + b"\r\n\r\n", lines, st.lists(fields, max_size=6)
)


@given(heads)
@settings(max_examples=examples(300))
@example(get())
def test_what_the_front_accepts_llhttp_reads_the_same_way(raw: bytes) -> None:
    end = raw.find(b"\r\n\r\n") + 4
    assert_as_strict_as_llhttp(raw[:end])


def test_so_do_mutated_heads() -> None:
    rng = random.Random(SEED + 5)
    accepted = 0
    refused = [request for _, request in REFUSED.values()]
    for _ in range(share(ci=3_000, nightly=1_000_000)):
        stream = bytearray(rng.choice(fuzz.GOOD if rng.random() < 0.7 else refused)[:400])
        for _ in range(rng.choice((1, 1, 2))):
            at = rng.randrange(len(stream))
            stream[at : at + rng.choice((0, 1, 1))] = rng.choice([rng.randbytes(1), rng.choice(fuzz.MORSELS)[:30]])
        raw = bytes(stream).removeprefix(b"\r\n")
        end = raw.find(b"\r\n\r\n")
        if end >= 0:
            accepted += assert_as_strict_as_llhttp(raw[: end + 4])
    assert accepted > 300
