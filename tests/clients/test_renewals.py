"""How the Python client asks for its next lease: nothing that goes on beside it holds that up."""

import asyncio

from tidegate_client import AsyncTidegate, Check, Options
from tidegate_client.asynchronous import LEASE_AGAIN_AFTER_S
from tidegate_client.nodes import CHECK_BATCH, Answered, NoAnswerError

CHECK = Check(api_key="k", endpoint="e")
ALLOWED = b'{"decisions": [{"allowed": true}]}'
LEASE = b'{"allowed": true, "granted": 10, "lease": "t", "expires_in_s": 1}'
DENIED = b'{"allowed": false, "status": 429, "retry_after_s": 5, "granted": 0, "lease": null, "expires_in_s": 0}'


class Played:
    """A client whose clock and node are played: returns get no answer, ``lease`` is what asking for one gets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lease: bytes | None = LEASE
        self.asked: list[str] = []
        options = Options(urls=("http://127.0.0.1:9",), leases=True, on_failure="raise", timeout_s=5.0)
        self.client = AsyncTidegate(options, now=lambda: self.now)
        self.client.nodes.post = self.client.batcher.post = self._post

    async def _post(self, path: str, body: bytes, *, origin: str | None = None) -> Answered:
        self.asked.append(path)
        if self.lease is None and path == "/v1/leases":
            raise NoAnswerError("no answer in time")
        if path == "/v1/leases/return":
            await asyncio.Event().wait()
        return Answered("o", 200, ALLOWED if path == CHECK_BATCH else self.lease)

    async def often_enough(self) -> None:
        """Ask once, so that the next question is worth a lease."""
        assert (await self.client.decide(CHECK)).source == "node"
        self.now += 0.1

    async def end(self) -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()


async def test_a_renewal_does_not_wait_for_the_return_of_the_lease_before():
    played = Played()
    await played.often_enough()
    for _ in range(100):
        assert (await played.client.decide(CHECK)).source == "lease"
        for _ in range(3):
            await asyncio.sleep(0)
    assert played.asked.count("/v1/leases") >= 10
    assert played.asked.count("/v1/leases/return") >= 9
    await played.end()


async def test_who_waits_for_a_lease_hears_that_it_is_denied_from_the_node_and_later_from_memory():
    played = Played()
    played.lease = DENIED
    await played.often_enough()
    answers = await asyncio.gather(*(played.client.decide(CHECK) for _ in range(3)))
    assert [(answer.allowed, answer.source) for answer in answers] == [(False, "node")] * 3
    assert (await played.client.decide(CHECK)).source == "memory"
    assert played.asked == [CHECK_BATCH, "/v1/leases"]
    await played.end()


async def test_a_lease_that_got_no_answer_is_asked_for_again_soon_and_meanwhile_the_node_decides():
    played = Played()
    played.lease = None
    await played.often_enough()
    for _ in range(5):
        assert (await played.client.decide(CHECK)).source == "node"
    assert played.asked.count("/v1/leases") == 1
    played.lease = LEASE
    played.now += LEASE_AGAIN_AFTER_S
    assert (await played.client.decide(CHECK)).source == "lease"
    await played.end()


async def test_what_is_too_long_to_keep_is_decided_by_the_node_each_time():
    played = Played()
    played.lease = DENIED
    for check in (Check(api_key="k", path="/" * 1_000), Check(api_key="k", attributes=(("a", "b" * 1_000),))):
        for _ in range(3):
            assert (await played.client.decide(check)).source == "node"
            played.now += 0.1
    assert played.asked == [CHECK_BATCH] * 6
    assert not played.client.book.accounts
    await played.end()
