"""What nodes and agents send is refused with the name of the field that is wrong."""

from typing import Any

import msgspec
import pytest

from control_plane.errors import InvalidError
from control_plane.web.messages import body_of, decoded
from tidegate.contract.config import Ack
from tidegate.contract.load import RegionLoad
from tidegate.contract.questions import NodeAnswer
from tidegate.contract.status import NodeReport

ACK = {"node": "eu-1", "revision": 1, "digest": "0" * 64}
REPORT = {"node": "eu-1", "decisions": 3}
ANSWER = {"id": "0" * 32, "node": "eu-1", "revision": 1}
BACKEND = {"backend": "b", "policy": "p", "factor": 1, "reason": "full", "since": 1, "decided_at": 1, "decided_by": "n"}


def load(**changes: Any) -> dict[str, Any]:
    return {"backends": [BACKEND | changes]}


@pytest.mark.parametrize(
    ("message", "good", "wrong", "field"),
    [
        (Ack, ACK, {"node": "a b"}, "node"),
        (Ack, ACK, {"node": "eu-1\n"}, "node"),
        (Ack, ACK, {"node": "a" * 129}, "node"),
        (Ack, ACK, {"revision": -1}, "revision"),
        (Ack, ACK, {"revision": 2**53 + 1}, "revision"),
        (Ack, ACK, {"digest": "0" * 63}, "digest"),
        (Ack, ACK, {"digest": "0" * 64 + "\n"}, "digest"),
        (Ack, ACK, {"effective": {"0": 1}}, "effective"),
        (Ack, ACK, {"effective": {str(10**18): 1}}, "effective"),
        (Ack, ACK, {"effective": {"5": -1}}, "effective[...]"),
        (Ack, ACK, {"effective": {"5": 2**53 + 1}}, "effective[...]"),
        (Ack, ACK, {"effective": {str(id): 1 for id in range(1, 10_002)}}, "effective"),
        (NodeReport, REPORT, {"node": ""}, "node"),
        (NodeReport, REPORT, {"decisions": -1}, "decisions"),
        (NodeReport, REPORT, {"denied": 10**12 + 1}, "denied"),
        (NodeReport, REPORT, {"degraded": "many"}, "degraded"),
        (NodeAnswer, ANSWER, {"node": "eu-1\n"}, "node"),
        (NodeAnswer, ANSWER, {"id": "0" * 32 + "\n"}, "id"),
        (NodeAnswer, ANSWER, {"figures": [[1, 2, 3, 4, -1]]}, "figures[0][4]"),
        (RegionLoad, {"node": "eu-1"}, {"node": "a" * 129}, "node"),
        (RegionLoad, {"node": "eu-1"}, {"node": "\0"}, "node"),
        (RegionLoad, {"node": "eu-1"}, {"backends": [BACKEND] * 1_001}, "backends"),
        (RegionLoad, {"node": "eu-1"}, load(signal="\0"), "backends[0].signal"),
        (RegionLoad, {"node": "eu-1"}, load(since=7_258_118_400), "backends[0].since"),
        (RegionLoad, {"node": "eu-1"}, load(reporters=-1), "backends[0].reporters"),
        (
            RegionLoad,
            {"node": "eu-1"},
            load(classes=[{"priority": 2**53 + 1, "factor": 1, "offered_per_s": 1}]),
            "backends[0].classes[0].priority",
        ),
    ],
)
def test_a_wrong_field_is_named(
    message: type[msgspec.Struct], good: dict[str, Any], wrong: dict[str, Any], field: str
) -> None:
    decoder = msgspec.json.Decoder(message)
    assert isinstance(decoded(decoder, msgspec.json.encode(good)), message)
    with pytest.raises(InvalidError) as refused:
        decoded(decoder, msgspec.json.encode(good | wrong))
    assert [error.field for error in refused.value.errors] == [field]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 100_000, b'{"node": "\xff"}'])
def test_what_is_no_message_is_a_wrong_body(body: bytes) -> None:
    with pytest.raises(InvalidError) as refused:
        decoded(msgspec.json.Decoder(Ack), body)
    assert [error.field for error in refused.value.errors] == ["body"]


def test_openapi_has_the_bounds_of_the_type() -> None:
    schema = body_of(Ack)["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["node", "revision", "digest"]
    assert schema["properties"]["revision"] == {"type": "integer", "minimum": 0, "maximum": 2**53}
    assert schema["properties"]["effective"]["propertyNames"] == {"pattern": "^[1-9][0-9]{0,17}$"}
