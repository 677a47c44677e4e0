"""Answers as bytes: the status, a block of header lines, the body. The routes and the fast path send the same."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from tidegate.http_front.responses import TITLES

JSON_TYPE = b"content-type: application/json\r\n"
PROBLEM_TYPE = b"content-type: application/problem+json\r\ncache-control: no-store\r\n"


class Answer(msgspec.Struct, frozen=True, gc=False):
    """``headers`` is a block of ``name: value`` lines, each ended by CRLF, without framing headers."""

    status: int
    headers: bytes
    body: bytes


class FieldError(NamedTuple):
    """What is wrong with one member of the input."""

    field: str
    message: str


def problem_body(status: int, detail: str, errors: Sequence[FieldError], **members: Any) -> dict[str, Any]:
    """The members of an RFC 9457 problem about the input, naming the fields."""
    body: dict[str, Any] = {"type": "about:blank", "title": TITLES[status], "status": status, "detail": detail}
    body.update(members)
    if errors:
        body["errors"] = [{"field": error.field, "message": error.message} for error in errors]
    return body


def problem(status: int, detail: str, errors: Sequence[FieldError] = (), **members: Any) -> Answer:
    """An RFC 9457 problem as an answer."""
    return Answer(status, PROBLEM_TYPE, msgspec.json.encode(problem_body(status, detail, errors, **members)))


def json_answer(body: Any) -> Answer:
    """200 with a JSON body."""
    return Answer(200, JSON_TYPE, msgspec.json.encode(body))


class InputError(Exception):
    """The request is malformed: the answer is a 4xx problem, never a decision."""

    def __init__(self, status: int, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors

    def answer(self) -> Answer:
        """The problem to send."""
        return problem(self.status, self.detail, self.errors)
