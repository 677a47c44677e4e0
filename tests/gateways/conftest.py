"""The sites that gateway tests share: one of each kind for each gateway, started when first wanted."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from testing.caddy import CaddyServer
from testing.envoy import EnvoyRateLimitServer, EnvoyServer
from testing.gateway import GatewayServer
from testing.haproxy import HaproxyServer
from testing.nginx import NginxServer
from testing.node import GATEWAY_TOKEN
from testing.traefik import TraefikServer
from tests.gateways.setting import LoopThread, Site, open_site
from tidegate.stack.store import StoreServer

GATEWAYS: dict[str, type[GatewayServer]] = {
    server.name: server
    for server in (EnvoyServer, NginxServer, TraefikServer, CaddyServer, HaproxyServer, EnvoyRateLimitServer)
}


@pytest.fixture(scope="package")
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(scope="package", params=list(GATEWAYS))
def gateway_class(request: pytest.FixtureRequest) -> type[GatewayServer]:
    """Every gateway, one after the other."""
    return GATEWAYS[request.param]


@pytest.fixture(scope="package")
def open_sites(
    gateway_class: type[GatewayServer], tmp_path_factory: pytest.TempPathFactory, valkey_server: StoreServer,
    loop: LoopThread,
) -> Iterator[Callable[..., Site]]:  # fmt: skip
    """Start a site of this gateway; all of them end with the gateway's tests."""
    with ExitStack() as running:

        def start(**wanted: object) -> Site:
            directory = tmp_path_factory.mktemp(gateway_class.name)
            return running.enter_context(open_site(gateway_class, directory, valkey_server.url, loop, **wanted))

        yield start


@pytest.fixture(scope="package")
def site(open_sites: Callable[..., Site]) -> Site:
    """The example as it stands: fail-closed, no token, end clients connect to the gateway."""
    return open_sites()


@pytest.fixture(scope="package")
def open_site_of_gateway(open_sites: Callable[..., Site]) -> Site:
    """The example with its option fail-open."""
    return open_sites(options=["fail-open"])


@pytest.fixture(scope="package")
def inner_site(open_sites: Callable[..., Site]) -> Site:
    """Behind another proxy, with a gateway token at a node that requires one, and a second node that is gone."""
    return open_sites(options=["behind-a-proxy", "two-nodes"], token=GATEWAY_TOKEN, trusted_hops=2)
