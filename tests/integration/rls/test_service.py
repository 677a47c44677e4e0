"""Envoy's rate limit service on a real store, asked by a gRPC client of another make."""

import asyncio
import contextlib
import json
import ssl

import grpc
import pytest
from envoy.extensions.common.ratelimit.v3.ratelimit_pb2 import RateLimitDescriptor
from envoy.service.ratelimit.v3.rls_pb2 import RateLimitRequest, RateLimitResponse
from structlog.testing import capture_logs

from data_plane.decide.denial_ring import RedisDenials
from data_plane.http.render import Renderer
from data_plane.node import Node
from data_plane.process import TlsFiles
from data_plane.rls.mapping import RlsMapping
from data_plane.rls.server import serving_rls
from data_plane.rls.service import SERVICE, RateLimitService, handler_of
from testing.certificates import certificate
from testing.node import GATEWAY_TOKEN, key_of, rule, settings_for, write_snapshot
from tidegate.contract.config import Client, Endpoint, Gateway, Plan
from tidegate.contract.credentials import secret_sha256
from tidegate.contract.denials import DenialQuery
from tidegate.stack.ports import free_ports

OK, OVER = RateLimitResponse.OK, RateLimitResponse.OVER_LIMIT
CONFIG = [
    Plan(plan="free", limits=(rule(1, "hourly", 5),)),
    Plan(
        plan="anonymous", limits=(rule(2, "per-ip", 2, scope="ip"), rule(3, "by-tenant", 3, scope="attribute:tenant"))
    ),
    Plan(plan="none", limits=()),
    Plan(plan="eager", limits=(rule(5, "open", 10, on_store_failure="open"), rule(6, "local", 20))),
    rule(4, "all", 50, scope="global"),
    Client(client="acme", plan="free"),
    Client(client="eager", plan="eager"),
    Client(client="gone", plan="free", status="suspended"),
    key_of("acme", "tg_acme"),
    key_of("gone", "tg_gone"),
    Endpoint(endpoint="export", method="POST", path="/api/exports", cost=3),
    Gateway(gateway="edge", sha256=secret_sha256(GATEWAY_TOKEN)),
]
MAPPING = RlsMapping(
    {"edge": {"remote_address": "ip", "key": "api_key", "generic_key": "endpoint", "tenant": "attribute:tenant",
              "client": "client"}}
)  # fmt: skip


class Asker:
    """A gRPC client of one service."""

    def __init__(self, channel, domain="edge", metadata=()):
        self._call = channel.unary_unary(
            f"/{SERVICE}/ShouldRateLimit",
            request_serializer=RateLimitRequest.SerializeToString,
            response_deserializer=RateLimitResponse.FromString,
        )
        self.channel = channel
        self.domain = domain
        self.metadata = metadata
        self.ask_raw = channel.unary_unary(
            f"/{SERVICE}/ShouldRateLimit", response_deserializer=RateLimitResponse.FromString
        )

    async def ask(self, *descriptors, hits=0, own_hits=()):
        request = RateLimitRequest(domain=self.domain, hits_addend=hits)
        for nth, entries in enumerate(descriptors):
            descriptor = RateLimitDescriptor()
            for key, value in entries.items():
                descriptor.entries.add(key=key, value=value)
            if nth < len(own_hits):
                descriptor.hits_addend.value = own_hits[nth]
            request.descriptors.append(descriptor)
        return await self._call(request, timeout=5, metadata=self.metadata)


@contextlib.asynccontextmanager
async def asker_of(tmp_path, redis_url, *, tls=None, channel_of=None, **settings):
    snapshot = tmp_path / "snapshot"
    await write_snapshot(snapshot, CONFIG)
    node = Node(settings_for(snapshot, redis_url, **settings))
    service = RateLimitService(
        node.decider, Renderer("us-east", "epoch"), MAPPING, node.settings.trust, node.settings.node
    )
    async with node.running(), serving_rls(handler_of(service, lambda: True), "127.0.0.1", 0, tls) as port:
        address = f"localhost:{port}" if tls else f"127.0.0.1:{port}"
        channel = channel_of(address) if channel_of else grpc.aio.insecure_channel(address)
        async with channel:
            asker = Asker(channel)
            asker.port, asker.node = port, node
            yield asker


@pytest.fixture
async def asker(tmp_path, valkey_url):
    async with asker_of(tmp_path, valkey_url) as asker:
        yield asker


def headers_of(response):
    return {header.key: header.value for header in response.response_headers_to_add}


ACME = {"key": "tg_acme"}


async def test_what_is_allowed_says_what_is_left(asker):
    response = await asker.ask(ACME)
    status = response.statuses[0]
    assert (response.overall_code, status.code, status.limit_remaining) == (OK, OK, 4)
    assert (status.current_limit.name, status.current_limit.requests_per_unit) == ("hourly", 5)
    assert status.current_limit.unit == RateLimitResponse.RateLimit.HOUR
    assert 0 < status.duration_until_reset.seconds <= 7200
    headers = headers_of(response)
    assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("5", "4")
    assert headers["ratelimit-policy"] == '"hourly";q=5;w=3600'
    assert response.raw_body == b""


async def test_a_denial_is_a_problem_and_consumes_nothing(asker):
    assert (await asker.ask(ACME, hits=4)).overall_code == OK
    with capture_logs() as lines:
        denied = await asker.ask(ACME, hits=2)
    headers, problem = headers_of(denied), json.loads(denied.raw_body)
    assert (denied.overall_code, denied.statuses[0].code) == (OVER, OVER)
    assert headers["content-type"] == "application/problem+json"
    assert int(headers["retry-after"]) == problem["retry_after"] == denied.statuses[0].duration_until_reset.seconds
    assert (problem["status"], problem["violated-policies"]) == (429, ["hourly"])
    assert problem["instance"] in [line.get("request_id") for line in lines], "it is found in the log"
    assert (await asker.ask(ACME)).statuses[0].limit_remaining == 0
    assert (await asker.ask(ACME, own_hits=[0])).overall_code == OK, "a hit of 0 is a look"


async def test_a_denial_is_found_afterwards(tmp_path, valkey_url):
    async with asker_of(tmp_path, valkey_url) as asker:
        together = json.loads((await asker.ask(ACME, {"remote_address": "203.0.113.9"}, hits=3)).raw_body)["instance"]
        refused = json.loads((await asker.ask({"key": "tg_gone"})).raw_body)["instance"]
        await asker.node.observability.ring.flush()
        ring = RedisDenials(asker.node.store)
        found = {one: (await ring.find(DenialQuery(request_id=one), 30)).denials for one in (together, refused)}
    assert [(one.cause, one.policy, one.ip) for one in found[together]] == [
        ("cost_above_limit", "per-ip", "203.0.113.9")
    ]
    assert [(one.cause, one.client) for one in found[refused]] == [("client_suspended", "gone")]


async def test_a_descriptor_is_one_check_of_all_its_entries(asker):
    response = await asker.ask(ACME | {"generic_key": "export"})
    assert response.statuses[0].limit_remaining == 2, "an export costs three"
    assert (await asker.ask(ACME | {"generic_key": "export"})).overall_code == OVER


async def test_of_several_descriptors_none_is_taken_when_one_denies(asker):
    tenant = {"tenant": "t1", "remote_address": "203.0.113.1"}
    for _ in range(2):
        assert (await asker.ask(ACME, tenant)).overall_code == OK
    denied = await asker.ask(ACME, tenant)  # the anonymous address has used its two up
    assert [status.code for status in denied.statuses] == [OK, OVER]
    assert json.loads(denied.raw_body)["violated-policies"] == ["per-ip"]
    assert (await asker.ask(ACME, own_hits=[0])).statuses[0].limit_remaining == 3
    assert (await asker.ask({"tenant": "t1"}, own_hits=[0])).statuses[0].code == OK


async def test_descriptors_that_meet_the_same_limit_are_taken_together_or_not_at_all(asker):
    for code in (OK, OK, OVER, OVER):
        response = await asker.ask(ACME, ACME)
        assert response.overall_code == code, "two of five each"
    assert json.loads(response.raw_body)["retry_after"] > 0
    assert (await asker.ask(ACME)).overall_code == OK, "the fifth was not taken by a request that was denied"


async def test_what_descriptors_need_together_is_asked_of_the_limits_that_they_share_alone(asker):
    """The hourly limit of each was said to hold too little for both, for ever."""
    for nth in range(22):
        assert (await asker.ask({"remote_address": f"203.0.113.{nth}", "tenant": f"t{nth}"}, hits=2)).overall_code == OK
    assert (await asker.ask(ACME)).overall_code == OK  # of its limit four are left, of that of all five
    denied = await asker.ask(ACME, {"remote_address": "203.0.113.99", "tenant": "t99"}, own_hits=[4, 2])
    problem = json.loads(denied.raw_body)
    assert [status.current_limit.name for status in denied.statuses] == ["all", "all"]
    assert (problem["violated-policies"], problem["cause"]) == (["all"], "too_few_left")
    assert int(headers_of(denied)["retry-after"]) == problem["retry_after"] > 0
    assert headers_of(denied)["ratelimit"].startswith('"hourly";r=4;t=')


async def test_descriptors_of_unlike_costs_ask_for_what_they_need_together_and_no_more(asker):
    assert (await asker.ask(ACME, hits=2)).overall_code == OK
    problem = json.loads((await asker.ask(ACME | {"generic_key": "export"}, ACME)).raw_body)
    assert problem["message"] == "Limit 'hourly' of 5 per 3600 s has 3 left, 4 asked."
    assert problem["retry_after"] > 0


async def test_each_descriptor_may_have_its_own_hits(asker):
    response = await asker.ask(ACME, {"tenant": "t2"}, hits=1, own_hits=[3])
    assert response.overall_code == OK
    assert response.statuses[0].limit_remaining == 2
    assert (await asker.ask(ACME, {"tenant": "t2"}, own_hits=[3, 1])).overall_code == OVER


async def test_exactly_the_limit_passes_however_many_ask_at_once(asker):
    answers = await asyncio.gather(*(asker.ask(ACME) for _ in range(40)))
    assert sorted(answer.overall_code for answer in answers) == [OK] * 5 + [OVER] * 35


async def test_many_at_once_with_several_descriptors_never_pass_too_much(asker):
    """Between look and take others may come: too few may pass, never too many."""
    each = [{"remote_address": f"203.0.113.{nth}"} for nth in range(40)]
    answers = await asyncio.gather(*(asker.ask(ACME, address) for address in each))
    assert 1 <= sum(answer.overall_code == OK for answer in answers) <= 5


@pytest.mark.parametrize(
    ("entries", "error"),
    [
        ({"key": "tg_gone"}, "client_suspended"),
        ({"client": "nobody"}, "malformed_request"),
        ({"generic_key": "nowhere"}, "malformed_request"),
        ({"remote_address": "nonsense"}, "malformed_request"),
        ({"tenant": ""}, "malformed_request"),
        ({"tenant": "t" * 200}, "malformed_request"),
    ],
)
async def test_what_an_end_client_may_have_caused_is_over_the_limit_and_no_error(asker, entries, error):
    """An error would let it pass: Envoy's filter fails open unless told otherwise."""
    for descriptors in ([entries], [ACME, entries]):
        refused = await asker.ask(*descriptors)
        assert (refused.overall_code, refused.statuses[-1].code) == (OVER, OVER)
        assert json.loads(refused.raw_body)["error"] == error
    assert (await asker.ask(ACME, own_hits=[0])).statuses[0].limit_remaining == 5


async def test_bytes_that_are_no_text_are_over_the_limit_and_no_error(asker):
    """As Envoy sends them when an end client's header has them."""
    whole = RateLimitRequest(domain="edge")
    whole.descriptors.add().entries.add(key="tenant", value="@@@@")
    answer = await asker.ask_raw(whole.SerializeToString().replace(b"@@@@", b"\xff\xfe\xff\xfe"))
    assert (answer.overall_code, json.loads(answer.raw_body)["error"]) == (OVER, "malformed_request")


async def test_what_the_operator_got_wrong_is_an_error_that_says_it(asker):
    for descriptors, named in (([{"colour": "red"}], "colour"), ([], "descriptors"), ([ACME] * 65, "descriptors")):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await asker.ask(*descriptors)
        assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert named in failed.value.details()
    asker.domain = "elsewhere"
    with pytest.raises(grpc.aio.AioRpcError, match="elsewhere"):
        await asker.ask(ACME)


async def test_hits_that_would_be_given_back_are_an_error_and_are_not_charged(asker):
    """``is_negative_hits`` of Envoy 1.38 and later, which charged them."""
    whole = RateLimitRequest(domain="edge")
    for _ in range(2):
        descriptor = whole.descriptors.add()
        descriptor.entries.add(key="key", value="tg_acme")
        descriptor.hits_addend.value = 2
        descriptor.MergeFromString(b"\x20\x01")
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await asker.ask_raw(whole.SerializeToString())
        assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "is_negative_hits" in failed.value.details()
    assert (await asker.ask(ACME, own_hits=[0])).statuses[0].limit_remaining == 5


async def test_without_limits_everything_passes(asker):
    response = await asker.ask({"generic_key": "export", "client": "acme"}, {"remote_address": "203.0.113.9"})
    assert response.overall_code == OK


async def test_a_gateway_token_is_needed_where_the_network_is_not_trusted(tmp_path, valkey_url):
    for trust in ("token", "required"):
        async with asker_of(tmp_path, valkey_url, trust=trust) as asker:
            for metadata in ((), (("x-tidegate-token", "tgg_wrong"),)):
                asker.metadata = metadata
                with pytest.raises(grpc.aio.AioRpcError) as failed:
                    await asker.ask(ACME)
                assert failed.value.code() == grpc.StatusCode.UNAUTHENTICATED
            asker.metadata = (("x-tidegate-token", GATEWAY_TOKEN),)
            assert (await asker.ask(ACME)).overall_code == OK


async def test_without_the_store_limits_do_what_they_say(tmp_path):
    async with asker_of(tmp_path, f"redis://127.0.0.1:{free_ports(1)[0]}/0") as asker:
        answers = [(await asker.ask(ACME)).overall_code for _ in range(6)]
        assert answers == [OK] * 5 + [OVER], "local: counted in the node's memory"


async def test_without_the_store_descriptors_that_meet_an_open_limit_take_no_more_than_they_ask_for(tmp_path):
    async with asker_of(tmp_path, f"redis://127.0.0.1:{free_ports(1)[0]}/0") as asker:
        export, other = {"client": "eager", "generic_key": "export"}, {"client": "eager"}
        assert (await asker.ask(export, other, own_hits=(2, 6))).overall_code == OK
        answers = [(await asker.ask(other, hits=hits)).overall_code for hits in (9, 8)]
        assert answers == [OVER, OK], "12 of 20 are taken"


async def test_decisions_that_are_traced_are_answered(tmp_path, valkey_url):
    async with asker_of(tmp_path, valkey_url, traces_url="http://127.0.0.1:9/v1/traces", traces_share=1.0) as asker:
        assert (await asker.ask(ACME)).overall_code == OK
        assert (await asker.ask(ACME, {"tenant": "t1"})).overall_code == OK
        assert (await asker.ask(ACME, hits=9)).overall_code == OVER


async def test_health_is_told_and_other_services_are_not_there(asker):
    channel = asker.channel
    assert await channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5) == b"\x08\x01"
    known = b"\n%c%b" % (len(SERVICE), SERVICE.encode())
    assert await channel.unary_unary("/grpc.health.v1.Health/Check")(known, timeout=5) == b"\x08\x01"
    for method, message, code in (
        ("/grpc.health.v1.Health/Check", b"\n\x05other", grpc.StatusCode.NOT_FOUND),
        (f"/{SERVICE}/Other", b"", grpc.StatusCode.UNIMPLEMENTED),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary(method)(message, timeout=5)
        assert failed.value.code() == code
    # a stream waits for an answer before it ends its request
    watch = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")(timeout=5)
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await watch.read()
    assert failed.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_messages_have_a_size_and_are_not_compressed(asker):
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await asker.ask({"tenant": "t" * 70_000})
    assert failed.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await asker.ask_raw(b"x" * 2_000, timeout=5, compression=grpc.Compression.Gzip)
    assert failed.value.code() == grpc.StatusCode.UNIMPLEMENTED
    long = await asker.ask({"tenant": "t" * 60_000})
    assert long.overall_code == OVER, "too long for an attribute, but it came whole"


async def test_a_call_that_nobody_waits_for_any_more_disturbs_no_other(asker):
    given_up = [asyncio.ensure_future(asker.ask(ACME, own_hits=[0])) for _ in range(20)]
    await asyncio.sleep(0)
    for one in given_up:
        one.cancel()
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await asker.ask_raw(b"", timeout=1e-9)
    # a refusal may arrive before gRPC looks at its clock
    assert failed.value.code() in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INVALID_ARGUMENT}
    answers = await asyncio.gather(*(asker.ask(ACME, own_hits=[0]) for _ in range(20)))
    assert {answer.overall_code for answer in answers} == {OK}


async def test_it_speaks_tls_and_asks_for_certificates(tmp_path, valkey_url):
    cert, key = certificate(tmp_path)
    pair = {"private_key": key.read_bytes(), "certificate_chain": cert.read_bytes()}
    for own, allowed in ((pair, True), ({}, False)):
        credentials = grpc.ssl_channel_credentials(root_certificates=cert.read_bytes(), **own)

        def secure(address, credentials=credentials):
            return grpc.aio.secure_channel(address, credentials)

        async with asker_of(tmp_path, valkey_url, tls=TlsFiles(cert, key, cert), channel_of=secure) as asker:
            if allowed:
                assert (await asker.ask(ACME)).overall_code == OK
            else:
                with pytest.raises(grpc.aio.AioRpcError):
                    await asker.ask(ACME)


async def test_over_tls_http_2_is_negotiated(tmp_path, valkey_url):
    cert, key = certificate(tmp_path)
    async with asker_of(tmp_path, valkey_url, tls=TlsFiles(cert, key, None)) as asker:
        for offered, selected in ((["h2", "http/1.1"], "h2"), ([], None), (["http/1.1"], None)):
            context = ssl.create_default_context(cafile=str(cert))
            if offered:
                context.set_alpn_protocols(offered)
            reader, writer = await asyncio.open_connection("localhost", asker.port, ssl=context)
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == selected
            writer.write(b"GET / HTTP/1.1\r\nHost: node\r\n\r\n")
            got = await asyncio.wait_for(reader.read(), 10)
            assert got.endswith(b"only HTTP/2 with prior knowledge is spoken here")
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
