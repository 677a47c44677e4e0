"""Makes checks with a gateway's ``X-Request-Id`` idempotent for ten seconds: nginx repeats some on redirects."""

from collections import OrderedDict
from collections.abc import Callable

from data_plane.http.answers import Answer
from tidegate.contract.decision import CheckRequest

REMEMBER_US = 10_000_000
MAX_REMEMBERED = 20_000

Reply = Callable[[Answer], None]
RequestName = tuple[str, bytes, int]
"""Gateway, request id, and a hash of who asked for what: no gateway can replay another's, and where an end client has a
say in the id, no request gets the answer to another one."""
MAX_REQUEST_NAME_BYTES = 128
"""Longer request ids are not kept, because end clients may choose them."""


def request_name(gateway: str, request_id: bytes, check: CheckRequest) -> RequestName:
    """The name of a gateway's request. The method is not in it: an internal redirect may change that."""
    asked = check.api_key, check.client, check.ip, check.path, check.endpoint, check.cost
    return gateway, request_id, hash((*asked, *sorted(check.attributes.items())))


class _Replay:
    __slots__ = ("answer", "asked_us", "waiting")

    def __init__(self, asked_us: int) -> None:
        self.asked_us = asked_us
        self.answer: Answer | None = None
        self.waiting: list[Reply] = []


class Replays:
    """This node's answers of the last ten seconds, at most ``MAX_REMEMBERED``; the oldest give way."""

    def __init__(self) -> None:
        self._replays: OrderedDict[RequestName, _Replay] = OrderedDict()

    def first_time(self, name: RequestName, reply: Reply, now_us: int) -> Reply | None:
        """The reply to use for a new request; ``None`` for a repetition, which gets the first one's answer."""
        known = self._replays.get(name)
        if known is not None and 0 <= now_us - known.asked_us < REMEMBER_US:  # below 0 where the clock was set back
            if known.answer is not None:
                reply(known.answer)
            else:
                known.waiting.append(reply)
            return None
        replay = self._replays[name] = _Replay(now_us)
        self._replays.move_to_end(name)
        if len(self._replays) > MAX_REMEMBERED:
            self._replays.popitem(last=False)

        def answered(answer: Answer) -> None:
            replay.answer = answer
            reply(answer)
            for late in replay.waiting:
                late(answer)
            replay.waiting.clear()

        return answered
