"""The OpenAPI description of the node's routes."""

from collections.abc import Mapping
from typing import Any

import msgspec

from data_plane.http.render import Denial
from tidegate import api_pages
from tidegate.contract.decision import CheckRequest, Decision
from tidegate.contract.denials import RepeatedDenials
from tidegate.contract.holds import (
    Lease,
    LeaseRequest,
    Reservation,
    ReservationRequest,
    Returned,
    Returns,
    Settled,
    Settlement,
)
from tidegate.contract.load import MAX_LOAD_REPORTS, MAX_SERVED_REPORTS, LoadReport, ServedReport


def _schema(of: Any) -> dict[str, Any]:
    """A JSON Schema without references, so that it can stand inside an operation."""
    (schema,), components = msgspec.json.schema_components([of], ref_template="#/components/schemas/{name}")

    def inlined(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return inlined(components[value["$ref"].rpartition("/")[2]])
            return {key: inlined(one) for key, one in value.items()}
        return [inlined(one) for one in value] if isinstance(value, list) else value

    return inlined(schema)  # type: ignore[no-any-return]


def _json(schema: dict[str, Any], media_type: str = "application/json") -> dict[str, Any]:
    return {media_type: {"schema": schema}}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": _json(schema)}}


_DECISION = _schema(Decision)
_DENIAL = _schema(Denial)
_REQUEST = _schema(CheckRequest)
_IN_A_BATCH = {"anyOf": [_REQUEST, {"description": 'anything else: answered in its place by `{"error": problem}`'}]}


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": _json(api_pages.PROBLEM, "application/problem+json")}


TAGS = [{"name": "decisions"}, {"name": "leases and reservations"}, {"name": "load"}, {"name": "operations"}]
_REFUSED = {
    400: _problem("not JSON"),
    401: _problem("no, unknown or expired key, or gateway token"),
    403: _problem("suspended, blocked, or a member that needs a gateway token"),
    413: _problem("the body is too large"),
    422: _problem("a member is wrong; `errors` names it"),
}
CHECK: dict[str, Any] = {
    "tags": ["decisions"],
    "openapi_extra": _body(_REQUEST),
    "responses": {
        200: {"description": "allowed", "content": _json(_DECISION)},
        429: {"description": "denied", "content": _json(_DENIAL, "application/problem+json")},
        **_REFUSED,
    },
}
CHECK_BATCH: dict[str, Any] = {
    "tags": ["decisions"],
    "openapi_extra": _body(
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["checks"],
            "properties": {"checks": {"type": "array", "minItems": 1, "maxItems": 1000, "items": _IN_A_BATCH}},
        }
    ),
    "responses": {
        200: {
            "description": 'a decision or `{"error": problem}` for each check, in order',
            "content": _json({"type": "object", "properties": {"decisions": {"type": "array", "items": {}}}}),
        },
        **_REFUSED,
    },
}
AUTHORIZE: dict[str, Any] = {
    "tags": ["decisions"],
    "responses": {
        200: {"description": "allowed"},
        401: _problem("no, unknown or ambiguous key"),
        403: _problem("suspended, blocked or malformed; with `deny_status=403` every denial"),
        429: _problem("denied"),
    },
}


def _hold(request: Any, answer: Any, responses: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """An operation on leases or reservations."""
    return {
        "tags": ["leases and reservations"],
        "openapi_extra": _body(_schema(request)),
        "responses": {
            200: {"description": "done", "content": _json(_schema(answer))},
            **responses,
            **_REFUSED,
            503: _problem("the store does not answer: nothing was taken"),
        },
    }


_DENIED = {"description": "denied", "content": _json(_DENIAL, "application/problem+json")}
LEASE = _hold(LeaseRequest, Lease, {429: _DENIED})
LEASE_RETURN = _hold(Returns, Returned, {})
RESERVATION = _hold(ReservationRequest, Reservation, {429: _DENIED})
SETTLEMENT = _hold(Settlement, Settled, {409: _problem("its time is over, or it was settled at another cost before")})


def _reports(item: Any, most: int, problems: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    """An operation that takes reports: one, or a batch of them."""
    one = _schema(item)
    batch = {
        "type": "object",
        "additionalProperties": False,
        "required": ["reports"],
        "properties": {"reports": {"type": "array", "minItems": 1, "maxItems": most, "items": one}},
    }
    taken = {"type": "object", "required": ["taken"], "properties": {"taken": {"type": "integer"}}}
    return {
        "tags": ["load"],
        "openapi_extra": _body({"anyOf": [one, batch]}),
        "responses": {
            202: {"description": "taken, all of them", "content": _json(taken)},
            **problems,
            **{status: _REFUSED[status] for status in (400, 413, 422)},
        },
    }


_NOT_OURS = {401: _problem("no valid credential of a reporter"), 403: _problem("not bound to the backend")}
LOAD = _reports(LoadReport, MAX_LOAD_REPORTS, _NOT_OURS)
REPORT = _reports(ServedReport, MAX_SERVED_REPORTS, {401: _problem("no valid gateway token")})
DENIALS: dict[str, Any] = {
    "tags": ["decisions"],
    "openapi_extra": _body(_schema(RepeatedDenials)),
    "responses": {
        202: {"description": "taken", "content": _json({"type": "object", "required": ["taken"]})},
        401: _problem("no valid gateway token"),
        403: _problem("needs a gateway token"),
        **{status: _REFUSED[status] for status in (400, 413, 422)},
    },
}
ME: dict[str, Any] = {
    "tags": ["decisions"],
    "responses": {
        200: {
            "description": "the limits, in this region",
            "content": _json(
                {
                    "type": "object",
                    "required": ["client", "plan", "region", "limits"],
                    "properties": {
                        "client": {"type": "string"},
                        "plan": {"type": "string"},
                        "region": {"type": "string"},
                        "limits": {"type": "array", "items": {"type": "object"}},
                    },
                }
            ),
        },
        401: _problem("no API key, or an unknown one"),
        403: _problem("the client is suspended or blocked"),
        429: _problem("asked too often"),
        503: _problem("the region's store does not answer"),
    },
}
_ANY_OBJECT = {"description": "as it is", "content": _json({"type": "object"})}
HEALTH: dict[str, Any] = {"tags": ["operations"]}
READY: dict[str, Any] = {"tags": ["operations"], "responses": {200: _ANY_OBJECT, 503: _ANY_OBJECT}}
STATUS: dict[str, Any] = {"tags": ["operations"], "responses": {200: _ANY_OBJECT}}
METRICS: dict[str, Any] = {
    "tags": ["operations"],
    "responses": {200: {"description": "Prometheus text", "content": {"text/plain": {}}}},
}
