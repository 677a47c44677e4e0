"""Envoy's messages (envoy/service/ratelimit/v3) and gRPC's of health checking, as far as a node reads or writes them.

Made from the table below instead of ``xds-protos``, which would bring gRPC's own server along. Numbers, types and names
are those of the originals; ``tests/unit/rls/test_messages.py`` compares them.
"""

from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_PACKAGE: Final = "tidegate.rls"
MESSAGES: Final = {
    "RateLimitRequest": ("1 string domain", "2 *Descriptor descriptors", "3 uint32 hits_addend"),
    "Descriptor": ("1 *Entry entries", "3 UInt64Value hits_addend", "4 bool is_negative_hits"),
    "Entry": ("1 string key", "2 string value"),
    "UInt64Value": ("1 uint64 value",),
    "RateLimitResponse": (
        "1 enum overall_code", "2 *DescriptorStatus statuses", "3 *HeaderValue response_headers_to_add",
        "5 bytes raw_body",
    ),
    "DescriptorStatus": (
        "1 enum code", "2 RateLimit current_limit", "3 uint32 limit_remaining", "4 Duration duration_until_reset",
    ),
    "RateLimit": ("1 uint32 requests_per_unit", "2 enum unit", "3 string name"),
    "Duration": ("1 int64 seconds", "2 int32 nanos"),
    "HeaderValue": ("1 string key", "2 string value"),
    "HealthCheckRequest": ("1 string service",),
    "HealthCheckResponse": ("1 enum status",),
}  # fmt: skip
"""The fields of each message; ``*`` repeats one. An enum is its number, which is the same on the wire."""

_TYPES: Final = {
    "string": FieldDescriptorProto.TYPE_STRING, "bytes": FieldDescriptorProto.TYPE_BYTES,
    "uint32": FieldDescriptorProto.TYPE_UINT32, "uint64": FieldDescriptorProto.TYPE_UINT64,
    "int32": FieldDescriptorProto.TYPE_INT32, "int64": FieldDescriptorProto.TYPE_INT64,
    "enum": FieldDescriptorProto.TYPE_INT32, "bool": FieldDescriptorProto.TYPE_BOOL,
}  # fmt: skip

OK, OVER_LIMIT = 1, 2
"""``RateLimitResponse.Code``."""
UNKNOWN_UNIT, SECOND, MINUTE, HOUR, DAY, MONTH, YEAR, WEEK = range(8)
"""``RateLimitResponse.RateLimit.Unit``."""
SERVING, NOT_SERVING = 1, 2
"""``HealthCheckResponse.ServingStatus``."""


def _pool() -> DescriptorPool:
    file = FileDescriptorProto(name="tidegate/rls.proto", package=_PACKAGE, syntax="proto3")
    for name, lines in MESSAGES.items():
        message = file.message_type.add(name=name)
        for line in lines:
            number, kind, field = line.split()
            one = message.field.add(name=field, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
            if kind.startswith("*"):
                one.label = FieldDescriptorProto.LABEL_REPEATED
            if kind in _TYPES:
                one.type = _TYPES[kind]
            else:
                one.type, one.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{_PACKAGE}.{kind.lstrip('*')}"
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL: Final = _pool()


def message_type(name: str) -> Any:
    """The class of a message of Envoy's protocol."""
    return GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


RateLimitRequest: Final = message_type("RateLimitRequest")
RateLimitResponse: Final = message_type("RateLimitResponse")
DescriptorStatus: Final = message_type("DescriptorStatus")
RateLimit: Final = message_type("RateLimit")
HeaderValue: Final = message_type("HeaderValue")
HealthCheckRequest: Final = message_type("HealthCheckRequest")
HealthCheckResponse: Final = message_type("HealthCheckResponse")
