"""An example for every operation: from the schemas' own examples and defaults, so that none can be forgotten."""

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]
MAX_DEPTH = 6
_PLAIN: dict[str, Any] = {"string": "text", "integer": 1, "number": 1.0, "boolean": True, "null": None}
_FORMATS = {"date-time": "2030-01-31T12:00:00Z", "date": "2030-01-31", "uri": "https://example.com/hook"}
_PATTERNS = (("[0-9a-f]{64}", "0" * 64), ("[A-Za-z0-9]", "acme"), ("[a-z0-9]", "free"), ("[A-Z]", "GET"))


def example_of(schema: Schema, components: Mapping[str, Schema], depth: int = 0) -> Any:
    """A value that fits ``schema``: what it gives as an example, else its default, else something of its type."""
    if "$ref" in schema:
        schema = components[schema["$ref"].rpartition("/")[2]]
    if schema.get("examples"):
        return schema["examples"][0]
    if "example" in schema:
        return schema["example"]
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for word in ("anyOf", "oneOf", "allOf"):
        if schema.get(word):
            choices = [choice for choice in schema[word] if choice.get("type") != "null"] or schema[word]
            return example_of(choices[0], components, depth)
    return _of_type(schema, components, depth)


def _of_type(schema: Schema, components: Mapping[str, Schema], depth: int) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object" or "properties" in schema:
        return _object(schema, components, depth)
    if kind == "array":
        if depth >= MAX_DEPTH or (schema.get("default") == [] and not schema.get("minItems")):
            return []
        return [example_of(schema.get("items", {}), components, depth + 1)]
    if kind == "string":
        return _text(schema)
    if kind in {"integer", "number"}:
        least = schema.get("minimum", schema.get("exclusiveMinimum"))
        default = schema.get("default")
        return default if default is not None else max(1, least) if least is not None else 1
    return _PLAIN.get(kind or "", {})


def _object(schema: Schema, components: Mapping[str, Schema], depth: int) -> dict[str, Any]:
    """What must be there, and what gives an example of itself: all optional members together may contradict."""
    required = set(schema.get("required", ()))
    return {
        name: example_of(member, components, depth + 1)
        for name, member in schema.get("properties", {}).items()
        if name in required or (depth < MAX_DEPTH and member.get("examples"))
    }


def _text(schema: Schema) -> str:
    if schema.get("default"):
        return str(schema["default"])
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    pattern = schema.get("pattern", "")
    text = next((value for part, value in _PATTERNS if part in pattern), "text")
    return text.ljust(schema.get("minLength", 0), "x")
