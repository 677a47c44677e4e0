"""The shapes of fields that several resources share, and the strict base of every body."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from fastapi import Depends, Header
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema

from control_plane.errors import FieldError, InvalidError

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_YEARS = range(1970, 2200)
REASON = "X-Tidegate-Reason"
MAX_REASON_LENGTH = 500

# At least one letter or digit, so that no name is a dot segment ("." or "..") of a URL.
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64, pattern=r"^[._-]*[a-z0-9][a-z0-9._-]*$"),
    Field(examples=["free"]),
]
"""The name of a plan, limit, endpoint, backend or region."""

ClientName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=128, pattern=r"^[._:@-]*[A-Za-z0-9][A-Za-z0-9._:@-]*$"),
    Field(examples=["acme"]),
]
ClientPrefix = Annotated[
    str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._:@-]+$"), Field(examples=["acme-"])
]
"""How names of clients begin."""
AttributeName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,64}$")]
AttributeValue = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]
Text = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""Free text of one line."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Method = Annotated[str, StringConstraints(pattern=r"^[A-Z]{1,16}$"), Field(examples=["GET"])]
Priority = Annotated[int, Field(ge=-1_000_000, le=1_000_000)]


def _instant(value: object) -> datetime:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("must be an instant in RFC 3339, such as 2030-01-31T12:00:00Z")
    try:
        instant = datetime.fromisoformat(value.upper())
    except ValueError as error:
        raise ValueError(f"is no such instant: {error}") from None
    # in UTC as well: what is stored must be good to be sent back
    if instant.year not in _YEARS or instant.astimezone(UTC).year not in _YEARS:
        raise ValueError(f"must lie in the years {_YEARS.start} to {_YEARS.stop - 1}")
    return instant.astimezone(UTC)


Instant = Annotated[
    datetime, BeforeValidator(_instant), WithJsonSchema({"type": "string", "format": "date-time"}, mode="validation")
]
"""A point in time, in RFC 3339 with an offset; kept in UTC."""


def _in_future(value: datetime) -> datetime:
    if value <= datetime.now(UTC):
        raise ValueError("must lie in the future")
    return value


Expiry = Annotated[Instant, AfterValidator(_in_future)]


OverlapS = Annotated[int, Field(ge=0, le=30 * 86_400, examples=[3600])]
"""For how many seconds what is replaced goes on working beside the new one."""


def whole(value: Any) -> Any:
    """A number without a fraction as an integer: JSON has one kind of numbers, and to JSON Schema 5.0 is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class Body(BaseModel):
    """A request body: unknown fields are refused by name, and nothing is converted silently but :func:`whole`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _whole_numbers(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: whole(one) for name, one in value.items()}

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Where names must match a pattern, say that there are no others: pydantic says only what those hold."""
        schema = handler(core_schema)
        _close(handler.resolve_ref_schema(schema))
        return schema


def _close(schema: Any) -> None:
    if isinstance(schema, list):
        for one in schema:
            _close(one)
    elif isinstance(schema, dict):
        if "patternProperties" in schema:
            schema.setdefault("additionalProperties", False)
        for one in schema.values():
            _close(one)


class View(BaseModel):
    """What is shown of a resource. ``model_validate`` takes a row, or anything else with attributes of these names."""

    UNTAGGED: ClassVar[set[str]] = set()
    """Members that change by themselves: no writer is held up by them."""
    model_config = ConfigDict(frozen=True, from_attributes=True)


def microseconds(window_s: float) -> int:
    """A window as it is stored."""
    return round(min(window_s, 1e10) * 1_000_000)


async def _reason(
    reason: Annotated[str | None, Header(alias=REASON, description=f"at most {MAX_REASON_LENGTH} letters")] = None,
) -> str | None:
    if reason is None:
        return None
    # headers arrive as latin-1; people write UTF-8
    text = reason.encode("latin-1", "replace").decode("utf-8", "replace")
    if len(text) > MAX_REASON_LENGTH:
        raise InvalidError([FieldError(REASON, f"has more than {MAX_REASON_LENGTH} letters")])
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()


Reason = Annotated[str | None, Depends(_reason)]
"""Why somebody changes something, on one line, for the history and the audit log; ``None`` without the header."""
