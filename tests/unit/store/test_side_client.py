"""The store's side client raises ``StoreUnavailableError``, whatever redis-py calls what went wrong."""

import pytest

from data_plane.store.ports import StoreUnavailableError
from data_plane.store.redis.client import SideClient
from data_plane.store.redis.settings import RedisSettings


@pytest.mark.parametrize("asked", ["execute", "call_script", "execute_all", "scan", "info"])
async def test_a_cluster_of_which_nobody_is_there_ends_no_background_work(asked: str) -> None:
    """Redis-py's error for that is no ``RedisError`` of its own: nodes told nobody any more that they live."""
    client = SideClient(RedisSettings(url="redis://127.0.0.1:9", shape="cluster"), None)
    arguments = {
        "execute": ("GET", b"k"), "call_script": ("return 1", [b"k"], []), "execute_all": ([("GET", b"k")],),
        "scan": ("", "*", 1), "info": (),
    }  # fmt: skip
    with pytest.raises(StoreUnavailableError):
        await getattr(client, asked)(*arguments[asked])
    await client.close()
