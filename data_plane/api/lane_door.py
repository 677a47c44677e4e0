"""The lane's door onto the decision endpoints: an exchange in, an answer out."""

from data_plane.api.answers import Answer
from data_plane.api.door import Door, Reply
from data_plane.api.lane.door import Exchange


class LaneDoor:
    """What the lane hands its requests to."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def check(self, exchange: Exchange) -> None:
        """``POST /v1/check``."""
        self._door.check(
            exchange.head.fields,
            exchange.body,
            _reply_to(exchange),
        )

    def check_batch(self, exchange: Exchange) -> None:
        """``POST /v1/check/batch``."""
        self._door.check_batch(
            exchange.head.fields,
            exchange.body,
            _reply_to(exchange),
        )

    def authorize(self, exchange: Exchange) -> None:
        """Any method on ``/v1/authorize`` and below."""
        method, target = exchange.method.decode("latin-1"), exchange.path.decode("latin-1")
        self._door.authorize(
            method,
            target,
            exchange.head.fields,
            _reply_to(exchange),
        )


def _reply_to(exchange: Exchange) -> Reply:
    def reply(answer: Answer) -> None:
        exchange.respond(answer.status, answer.headers, answer.body)

    return reply
