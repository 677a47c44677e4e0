"""The lane's door onto the decision endpoints: an exchange in, an answer out."""

from data_plane.api.door import Door
from data_plane.api.lane.door import Exchange


class LaneDoor:
    """What the lane hands its requests to."""

    def __init__(self, door: Door) -> None:
        self._door = door

    def check(self, exchange: Exchange) -> None:
        """``POST /v1/check``."""
        self._door.check(exchange.head.fields, exchange.body, lambda answer: exchange.respond(*answer))

    def check_batch(self, exchange: Exchange) -> None:
        """``POST /v1/check/batch``."""
        self._door.check_batch(exchange.head.fields, exchange.body, lambda answer: exchange.respond(*answer))

    def authorize(self, exchange: Exchange) -> None:
        """Any method on ``/v1/authorize`` and below."""
        method, target = exchange.method.decode("latin-1"), exchange.path.decode("latin-1")
        self._door.authorize(method, target, exchange.head.fields, lambda answer: exchange.respond(*answer))
