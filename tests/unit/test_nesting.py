"""What others wrote and nested too deeply is unreadable like any other: to agents, and to the Python client."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from data_plane.config.stream import ControlPlaneStream
from data_plane.rights import epoch_store
from tidegate_client import messages

DEEP = b'{"more": %s%s}' % (b"[" * 3_000, b"]" * 3_000)


@pytest.mark.parametrize(
    "read",
    [messages.read_decision, messages.read_lease, messages.read_reservation, lambda body: messages.read_batch(body, 1)],
    ids=["decision", "lease", "reservation", "batch"],
)
def test_a_client_takes_it_for_no_answer(read):
    with pytest.raises(messages.GarbledAnswerError):
        read(DEEP)


def test_an_agent_takes_it_for_nothing_said_in_the_store():
    assert epoch_store.read_vouch(DEEP) == epoch_store.Vouch("", 0)


async def test_an_agent_takes_it_for_no_answer_of_the_control_plane():
    async def nothing(ack):
        return ack

    asked = []

    async def answer(request):
        asked.append(request.path_qs)
        return web.Response(body=DEEP)

    app = web.Application()
    app.router.add_get("/internal/v1/newest", answer)
    async with TestServer(app) as server:
        stream = ControlPlaneStream(str(server.make_url("/")), "tgr_x", "n", "r", "1", None, None, nothing)
        assert await stream.newest() is None
        await stream.close()
    assert asked == ["/internal/v1/newest?node=n"]
