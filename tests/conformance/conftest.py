"""The implementations that the suite runs over."""

from collections.abc import Iterator

import pytest
import redis
from lupa import lua51

from data_plane.store.script_host import ScriptHost
from tests.conformance.drivers import Driver, LuaDriver, MemoryDriver, PureDriver
from tests.conformance.http_driver import http_driver

DRIVERS = ["pure", "memory", "memory-5.1", "valkey", "redis", "http"]


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """Every implementation of the rules, with untouched counters."""
    if request.param == "pure":
        yield PureDriver()
        return
    if request.param in {"memory", "memory-5.1"}:
        yield MemoryDriver(ScriptHost() if request.param == "memory" else ScriptHost(lua51))
        return
    if request.param == "http":
        folder = request.getfixturevalue("tmp_path")
        with http_driver(folder, request.getfixturevalue("valkey_url")) as http:
            yield http
        return
    with redis.Redis.from_url(request.getfixturevalue(f"{request.param}_url")) as client:
        yield LuaDriver(client)


@pytest.fixture
def timed_driver(driver: Driver) -> Driver:
    """Those whose clock the test moves."""
    if not driver.moves_clock:
        pytest.skip("this driver's clock cannot be moved")
    return driver
