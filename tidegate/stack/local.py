"""The local stack: what starts in which order, and stops in the opposite one."""

import concurrent.futures
import contextlib
import sys
from collections.abc import Callable, Sequence
from functools import partial

import httpx

from control_plane.settings import Settings as ControlPlaneSettings
from data_plane.settings import AgentSettings
from data_plane.settings import Settings as NodeSettings
from tidegate.environment import refusals
from tidegate.stack.admin import AdminApi
from tidegate.stack.child import Child, wait_until_done, wait_until_ready
from tidegate.stack.keyring import Keyring
from tidegate.stack.layout import DataDir, NodePlace, StackOptions, agent_places, node_places
from tidegate.stack.ports import LOOPBACK, free_ports, is_free
from tidegate.stack.postgres import PostgresServer
from tidegate.stack.progress import PortTakenError, Progress, StackError
from tidegate.stack.store import StoreServer

DATABASE = "tidegate"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
TIDEGATE = (sys.executable, "-m", "tidegate")


class LocalStack:
    """Postgres, the control plane, and per region a Valkey, an agent and nodes, all children of this process.

    ``interrupted`` is called while waiting and may raise to give up.
    """

    def __init__(
        self,
        options: StackOptions,
        data_dir: DataDir,
        keyring: Keyring,
        *,
        progress: Progress,
        interrupted: Callable[[], None],
    ) -> None:
        self.nodes = node_places(options)
        self.agents = agent_places(options)
        self.control_plane_url = f"http://{LOOPBACK}:{options.control_plane_port}"
        self._options = options
        self._data_dir = data_dir
        self._keyring = keyring
        self._progress = progress
        self._interrupted = interrupted
        durable = options.data_dir is not None
        postgres_port, *store_ports = free_ports(1 + len(options.regions))
        self._postgres = PostgresServer(
            data_dir.postgres,
            port=postgres_port,
            password=keyring.postgres_password,
            log_path=data_dir.log("postgres"),
            durable=durable,
        )
        self._stores = {
            region: StoreServer(
                data_dir.store(region),
                port=port,
                password=keyring.store_passwords[region],
                log_path=data_dir.log(f"valkey-{region}"),
                name=f"Valkey of {region}",
                durable=durable,
            )
            for region, port in zip(options.regions, store_ports, strict=True)
        }
        self._migration = Child(
            "the migration",
            [*TIDEGATE, "migrate", "--wait-s", f"{START_TIMEOUT_S:.0f}"],
            env={"TIDEGATE_DATABASE_URL": self._postgres.url(DATABASE)},
            log_path=data_dir.log("migrate"),
        )
        self._control_plane = self._control_plane_child()
        self._node_children = [self._node_child(place) for place in self.nodes]
        self._agent_children = [self._agent_child(place) for place in self.agents]

    def children(self) -> list[Child]:
        """Every process that runs for as long as the stack does."""
        stores = [store.child for store in self._stores.values()]
        return [self._postgres.child, *stores, self._control_plane, *self._agent_children, *self._node_children]

    def require_settings(self) -> None:
        """Raise ``StackError`` with what a process would say of its settings at its start, seconds from now."""
        for settings, child in (
            (ControlPlaneSettings, self._control_plane),
            (AgentSettings, self._agent_children[0]),
            (NodeSettings, self._node_children[0]),
        ):
            if lines := refusals(settings, child.env):
                raise StackError("\n  ".join([f"{child.name} refuses its settings", *lines]))

    def start(self, admin_token: str) -> None:
        """Start everything and wait until all of it is ready; on an error some of it still runs: call ``stop``.

        Raises ``PortTakenError`` where a new stack, with other ports for its servers, may start.
        """
        with self._progress.step("Postgres"):
            self._migration.start()  # it waits for Postgres, and loads what it needs meanwhile
            for store in self._stores.values():
                store.prepare()
                store.child.start()
            self._postgres.prepare()
            self._postgres.child.start()
            self._wait_for_server(self._postgres)
            self._postgres.ensure_database(DATABASE)
            self._control_plane.start()  # it loads while the schema is made, and is ready when both are done
        with self._progress.step("Valkey in " + ", ".join(self._stores)):
            for store in self._stores.values():
                self._wait_for_server(store)
        with self._progress.step("database schema"):
            wait_until_done(self._migration, timeout_s=START_TIMEOUT_S, interrupted=self._interrupted)
        with self._progress.step("control plane"):
            # They load while it loads, and dial until it answers. Nodes come later: what dials before its region is
            # known counts as a wrong credential, and the control plane bears only so many of those a minute.
            for child in self._agent_children:
                child.start()
            self._wait(self._control_plane, partial(is_ready, self.control_plane_url))
            self._tell_regions(admin_token)
        places = [*self.nodes, *self.agents]
        with self._progress.step("nodes " + ", ".join(place.name for place in self.nodes)):
            for child in self._node_children:
                child.start()
            for place, child in zip(places, [*self._node_children, *self._agent_children], strict=True):
                self._wait(child, partial(is_ready, place.url))

    def admin_api(self, token: str) -> AdminApi:
        """The control plane's API; the caller closes it."""
        return AdminApi(self.control_plane_url, token)

    def stop(self) -> None:
        """Stop what runs, those that need others first; bounded in time, and nothing is left behind."""
        for together in (
            self._node_children,
            self._agent_children,
            [self._control_plane, self._migration],
            [store.child for store in self._stores.values()],
            [self._postgres.child],
        ):
            _stop_all(together)

    def _wait_for_server(self, server: PostgresServer | StoreServer) -> None:
        try:
            self._wait(server.child, server.is_ready)
        except StackError as error:
            if server.child.exit_code() is None or is_free(server.port):
                raise
            raise PortTakenError(str(error)) from error

    def _wait(self, child: Child, is_ready: Callable[[], bool]) -> None:
        wait_until_ready(child, is_ready, timeout_s=START_TIMEOUT_S, interrupted=self._interrupted)

    def _tell_regions(self, admin_token: str) -> None:
        with contextlib.closing(self.admin_api(admin_token)) as admin:
            for region in self._options.regions:
                agent = next(place for place in self.agents if place.region == region)
                credential = self._keyring.region_credentials[region]
                admin.put(f"/v1/regions/{region}", {"peer_url": agent.url, "credential": credential})

    @property
    def trusts_network(self) -> bool:
        """Whether nodes take whoever reaches them for a gateway: so it is unless a setting says otherwise."""
        return self._options.settings.node.get("TIDEGATE_TRUST", "network") == "network"

    def _control_plane_child(self) -> Child:
        return Child(
            "control plane",
            [*TIDEGATE, "control-plane"],
            log_path=self._data_dir.log("control-plane"),
            env={
                "TIDEGATE_HOST": LOOPBACK,
                "TIDEGATE_PORT": str(self._options.control_plane_port),
                "TIDEGATE_DATABASE_URL": self._postgres.url(DATABASE),
                "TIDEGATE_SIGNING_KEY_FILE": str(self._data_dir.signing_key),
                "TIDEGATE_ADMIN_TOKEN_FILE": str(self._data_dir.admin_token),
            }
            | dict(self._options.settings.control_plane),
        )

    def _node_child(self, place: NodePlace) -> Child:
        settings = {"TIDEGATE_TRUST": "network", "TIDEGATE_DIALECT": "envoy"}
        return Child(
            f"node {place.name}",
            [*TIDEGATE, "data-plane"],
            log_path=self._data_dir.log(f"node-{place.name}"),
            env=self._settings_of(place) | settings | dict(self._options.settings.node) | self._rls_settings(place),
        )

    def _agent_child(self, place: NodePlace) -> Child:
        return Child(
            f"agent {place.name}",
            [*TIDEGATE, "region-agent"],
            log_path=self._data_dir.log(f"agent-{place.name}"),
            env=self._settings_of(place) | dict(self._options.settings.agent),
        )

    def _settings_of(self, place: NodePlace) -> dict[str, str]:
        """What nodes and agents both need."""
        return {
            "TIDEGATE_NODE": place.name,
            "TIDEGATE_REGION": place.region,
            "TIDEGATE_HOST": LOOPBACK,
            "TIDEGATE_PORT": str(place.port),
            "TIDEGATE_REDIS_URL": self._stores[place.region].url,
            "TIDEGATE_CONTROL_PLANE_URL": self.control_plane_url,
            "TIDEGATE_REGION_CREDENTIAL": self._keyring.region_credentials[place.region],
            "TIDEGATE_CONTROL_PLANE_PUBLIC_KEY": self._keyring.public_key(),
            "TIDEGATE_SNAPSHOT_FILE": str(self._data_dir.snapshot(place.name)),
            "TIDEGATE_DRAIN_S": "0",  # nobody balances load here: so stop at once
        }

    def _rls_settings(self, place: NodePlace) -> dict[str, str]:
        """The first node alone: the port is one."""
        port = self._options.rls_port
        return {} if port is None or place != self.nodes[0] else {"TIDEGATE_RLS_PORT": str(port)}


def _stop_all(children: Sequence[Child]) -> None:
    """Stop them at the same time: together they take as long as the slowest."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, len(children))) as pool:
        for stopped in [pool.submit(child.stop, STOP_TIMEOUT_S) for child in children]:
            stopped.result()


def is_ready(url: str) -> bool:
    """Whether ``/readyz`` below this URL answers 200."""
    try:
        # plain HTTP: to load the world's authorities would take longer than the look
        return httpx.get(f"{url}/readyz", timeout=2.0, trust_env=False, verify=False).status_code == 200  # noqa: S501
    except httpx.HTTPError:
        return False
