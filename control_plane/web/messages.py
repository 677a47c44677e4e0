"""What nodes and agents send, by the types of the contract: decoded or refused, and described for OpenAPI."""

import re
from typing import Any, TypeVar

import msgspec

from control_plane.errors import FieldError, InvalidError
from tidegate.contract.decoding import UNREADABLE, what_is_wrong

Message = TypeVar("Message")
_PLACED = re.compile(r"(.*) - at `(?:key` in `)?\$\.?(.*)`", re.DOTALL)
"""How msgspec names the place of what is wrong: ``... - at `$.cells[...].cost```."""


def decoded(decoder: msgspec.json.Decoder[Message] | msgspec.msgpack.Decoder[Message], body: bytes) -> Message:
    """The message in a request's body. Raises :class:`InvalidError`, which names the field."""
    try:
        return decoder.decode(body)
    except UNREADABLE as error:
        wrong = what_is_wrong(error)
        placed = _PLACED.fullmatch(wrong)
        field, reason = (placed[2] or "body", placed[1]) if placed is not None else ("body", wrong)
        raise InvalidError([FieldError(field, reason)]) from None


def json_of(message: type[msgspec.Struct]) -> dict[str, Any]:
    """The content of a JSON message in OpenAPI's words."""
    schema = msgspec.json.schema(message)
    return {"application/json": {"schema": _inlined(schema, schema["$defs"])}}


def body_of(message: type[msgspec.Struct]) -> dict[str, Any]:
    """A route's ``openapi_extra`` whose body is this message."""
    return {"requestBody": {"required": True, "content": json_of(message)}}


def _inlined(schema: Any, kinds: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inlined(part, kinds) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inlined(kinds[schema["$ref"].rpartition("/")[2]], kinds)
    # docstrings are for who reads the code
    return {
        name: _inlined(part, kinds) for name, part in schema.items() if name not in {"$defs", "title", "description"}
    }
