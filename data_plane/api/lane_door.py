"""The lane's door onto the decision endpoints: an exchange in, an answer out."""

from data_plane.api.answers import Answer
from data_plane.api.door import Door
from data_plane.api.lane.door import Exchange
from data_plane.api.questions import QUESTION_SLOTS, AuthorizeQuestion, Question


class LaneQuestion(Exchange, Question):
    """A check and its exchange, in one object."""

    __slots__ = QUESTION_SLOTS

    def reply(self, answer: Answer) -> None:
        """Send the answer."""
        self.respond(answer.status, answer.headers, answer.body)


class LaneAuthorizeQuestion(Exchange, AuthorizeQuestion):
    """A forward-auth subrequest and its exchange, in one object."""

    __slots__ = QUESTION_SLOTS

    def reply(self, answer: Answer) -> None:
        """Send the answer."""
        self.respond(answer.status, answer.headers, answer.body)


class LaneBatch(Exchange):
    """The exchange of a batch."""

    __slots__ = ()

    def reply(self, answer: Answer) -> None:
        """Send the answer."""
        self.respond(answer.status, answer.headers, answer.body)


class LaneDoor:
    """What the lane hands its requests to."""

    exchange_types = (LaneQuestion, LaneBatch, LaneAuthorizeQuestion)

    def __init__(self, door: Door) -> None:
        self._door = door

    def check(self, exchange: LaneQuestion) -> None:
        """``POST /v1/check``."""
        self._door.check(exchange.head.fields, exchange.body, exchange)

    def check_batch(self, exchange: LaneBatch) -> None:
        """``POST /v1/check/batch``."""
        self._door.check_batch(exchange.head.fields, exchange.body, exchange.reply)

    def authorize(self, exchange: LaneAuthorizeQuestion) -> None:
        """Any method on ``/v1/authorize`` and below."""
        head = exchange.head
        self._door.authorize(head.method.decode("latin-1"), head.target.decode("latin-1"), head.fields, exchange)
