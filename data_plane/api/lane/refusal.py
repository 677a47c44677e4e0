"""What the lane itself refuses, as RFC 9457 problems. The connection is then closed: its framing is in doubt."""

import json
from http import HTTPStatus

PROBLEM_HEADERS = b"content-type: application/problem+json\r\ncache-control: no-store\r\n"


class Refusal(Exception):  # noqa: N818 - a refusal is an answer, not a failure of ours
    """The request can't be served; ``detail`` is for the person who wrote the client and echoes nothing of it."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.bodiless = False
        """The request was HEAD: the answer must have no body."""


def problem(status: int, detail: str) -> bytes:
    """The body of a problem without a type of its own."""
    return json.dumps({"title": HTTPStatus(status).phrase, "status": status, "detail": detail}).encode()
