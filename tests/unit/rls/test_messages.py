"""Our messages are those of Envoy and of gRPC's health checking, on the wire."""

import pytest
from envoy.extensions.common.ratelimit.v3.ratelimit_pb2 import RateLimitDescriptor
from envoy.service.ratelimit.v3 import rls_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from data_plane.rls import messages

LIMIT = rls_pb2.RateLimitResponse.RateLimit
ORIGINALS = {
    "RateLimitRequest": rls_pb2.RateLimitRequest.DESCRIPTOR,
    "Descriptor": RateLimitDescriptor.DESCRIPTOR,
    "Entry": RateLimitDescriptor.Entry.DESCRIPTOR,
    "UInt64Value": RateLimitDescriptor.DESCRIPTOR.fields_by_name["hits_addend"].message_type,
    "RateLimitResponse": rls_pb2.RateLimitResponse.DESCRIPTOR,
    "DescriptorStatus": rls_pb2.RateLimitResponse.DescriptorStatus.DESCRIPTOR,
    "RateLimit": LIMIT.DESCRIPTOR,
    "Duration": rls_pb2.RateLimitResponse.DescriptorStatus.DESCRIPTOR.fields_by_name[
        "duration_until_reset"
    ].message_type,
    "HeaderValue": rls_pb2.RateLimitResponse.DESCRIPTOR.fields_by_name["response_headers_to_add"].message_type,
}


def kind_of(field: FieldDescriptor) -> tuple[int, bool, str]:
    # an enum is a number on the wire
    kind = FieldDescriptorProto.TYPE_INT32 if field.type == FieldDescriptor.TYPE_ENUM else field.type
    return kind, field.is_repeated, field.name


@pytest.mark.parametrize("name", ORIGINALS)
def test_every_field_is_as_in_the_original(name):
    ours = messages.message_type(name).DESCRIPTOR
    for field in ours.fields:
        if field.name == "is_negative_hits":  # 4 of Envoy 1.38, which xds-protos does not have yet
            assert field.number not in ORIGINALS[name].fields_by_number
            continue
        original = ORIGINALS[name].fields_by_number[field.number]
        assert kind_of(field) == kind_of(original)
        if field.message_type is not None:
            assert ORIGINALS[field.message_type.name] is original.message_type


def test_numbers_of_enums_are_as_in_the_original():
    codes = rls_pb2.RateLimitResponse
    assert (messages.OK, messages.OVER_LIMIT) == (codes.OK, codes.OVER_LIMIT)
    for name in ("SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR", "WEEK"):
        assert getattr(messages, name) == LIMIT.Unit.Value(name)
    assert messages.UNKNOWN_UNIT == LIMIT.UNKNOWN


def test_health_is_as_its_protocol_says():
    """grpc/grpc, doc/health-checking.md: field 1 of both; SERVING is 1, NOT_SERVING 2."""
    assert messages.HealthCheckRequest.FromString(b"\x0a\x03abc").service == "abc"
    assert messages.HealthCheckResponse(status=messages.SERVING).SerializeToString() == b"\x08\x01"
    assert messages.HealthCheckResponse(status=messages.NOT_SERVING).SerializeToString() == b"\x08\x02"


def test_what_we_do_not_know_is_no_error():
    request = rls_pb2.RateLimitRequest(domain="d")
    request.descriptors.add().limit.requests_per_unit = 7
    assert messages.RateLimitRequest.FromString(request.SerializeToString()).domain == "d"
