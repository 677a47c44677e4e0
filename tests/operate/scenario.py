"""A stack of two regions under mixed traffic and faults, with a Prometheus beside it: what fills every panel."""

import asyncio
import re
import threading
import time
from collections.abc import Callable

import httpx
import psutil

from testing.stack import Stack, wait_for
from tests.operate.load import Load
from tests.operate.prometheus import Prometheus
from tidegate.stack.child import wait_until_ready

PAUSED_S = 2.5
CALM_S = 3.0

PROTECT = {"cut_after": 1, "raise_after": 2, "floor": 0.01, "deepest_cut": 0.05}
"""Down to a hundredth: one client alone is shed then, whatever its cohort is in this hour."""


class Scenario:
    """``start``, then ``drive``; afterwards ``prometheus`` has something to say about everything."""

    def __init__(self, stack: Stack, prometheus: Prometheus) -> None:
        self.stack = stack
        self.prometheus = prometheus
        self.loads: list[Load] = []
        self._keys: dict[str, str] = {}
        self._reporters: list[str] = []
        self._first_port = stack.nodes[0].port

    def start(self) -> None:
        """Plans, clients and keys, while Prometheus starts; until it has scraped everything."""
        stack = self.stack
        self.prometheus.child.start()
        hourly = {"name": "hourly", "limit": 1_000_000, "window_s": 3600}
        trial = {"name": "trial", "limit": 20, "window_s": 3600, "shadow": True}
        stack.put("/v1/plans/roomy", {"limits": [hourly, trial]})
        exact = {"name": "exact", "limit": 60, "window_s": 3600, "mode": "strict"}
        stack.put("/v1/plans/exact", {"limits": [exact]})
        stack.put("/v1/plans/tight", {"limits": [{"name": "few", "limit": 40, "window_s": 3600}]})
        stack.put("/v1/plans/anonymous", {"limits": [{"name": "per-ip", "scope": "ip", "limit": 50, "window_s": 3600}]})
        stack.put("/v1/endpoints/get-user", {"method": "GET", "path": "/api/users/{id}"})
        stack.put("/v1/adaptive-policies/protect", PROTECT)
        stack.put("/v1/backends/reports", {"adaptive": "protect"})
        stack.put("/v1/endpoints/report", {"method": "GET", "path": "/reports/{id}", "backend": "reports"})
        for reporter in ("one", "two"):
            self._reporters.append(
                stack.post("/v1/reporters", {"reporter": reporter, "backends": ["reports"]})["secret"]
            )
        for client, plan in {"acme": "roomy", "globex": "tight", "hooli": "roomy", "initech": "exact"}.items():
            stack.put(f"/v1/clients/{client}", {"plan": plan})
            self._keys[client] = stack.post(f"/v1/clients/{client}/keys", {})["secret"]
        stack.put("/v1/clients/hooli", {"plan": "roomy", "status": "suspended"})
        wait_until_ready(self.prometheus.child, self.prometheus.is_ready, timeout_s=30)
        wanted = sum(len(addresses) for addresses in targets(stack).values())
        wait_for(lambda: len(self.prometheus.values("up == 1")) == wanted, 15, "Prometheus to scrape everything")

    def drive(self, calm_s: float = CALM_S) -> None:
        """Mixed traffic at every node, while the store of one region stands still for a moment, and more goes wrong."""
        stop = threading.Event()
        drivers = [threading.Thread(target=self._ask, args=(place.port, stop.is_set)) for place in self.stack.nodes]
        for driver in drivers:
            driver.start()
        try:
            self._misbehave()
            wait_for(self._overloaded, 30, "every node to shed what an overloaded backend cannot bear")
            calm_until = time.monotonic() + calm_s
            while time.monotonic() < calm_until:
                self.stack.put(f"/v1/clients/late-{time.monotonic_ns()}", {"plan": "roomy"})
                self._report_load(0.5)
                time.sleep(0.5)
        finally:
            stop.set()
            for driver in drivers:
                driver.join()
        # what was scraped last is from after the last request
        self._wait_for_scrapes()

    def _ask(self, port: int, until: Callable[[], bool]) -> None:
        request = {"method": "GET", "path": "/api/users/7", "ip": "203.0.113.9"}
        load = Load(port, {
            "acme": {**request, "api_key": self._keys["acme"]},
            "globex": {**request, "api_key": self._keys["globex"]},
            "nobody": request,
            "acme again": {**request, "api_key": self._keys["acme"], "path": "/elsewhere"},
            # which callers are shed is drawn anew each hour: of so many it is hardly ever nobody
            **{f"protected {n}": {**request, "ip": f"198.51.100.{n}", "path": "/reports/1"} for n in range(6)},
            "hooli": {**request, "api_key": self._keys["hooli"]},
            # one region wants more than its share of a strict limit; in the other this is one more of acme's
            "initech": {**request, "api_key": self._keys["initech" if port == self._first_port else "acme"]},
        })  # fmt: skip
        self.loads.append(load)
        asyncio.run(load.run(4, until, most=10_000, pause_s=0.02))

    def _misbehave(self) -> None:
        forged = {"x-tidegate-region": "eu-west", "x-tidegate-signature": "00" * 64}
        us_east, eu_west = self.stack.agents[0], self.stack.node("eu-west")
        assert us_east.region == "us-east"
        httpx.post(f"{us_east.url}/internal/v1/counts", content=b"junk", headers=forged, trust_env=False)
        httpx.get(f"{self.stack.admin.base_url}/v1/plans", headers={"Authorization": "Bearer wrong"}, trust_env=False)
        for job in self.stack.admin.get("/v1/jobs").json()["items"][:2]:
            self.stack.admin.post(f"/v1/jobs/{job['job']}/run")
        paused(self._store_of("us-east"))
        paused(self.stack.part("data-plane", eu_west.name))
        (agent,) = (place for place in self.stack.agents if place.region == "eu-west")
        paused(self.stack.part("region-agent", agent.name))

    def _report_load(self, cpu: float) -> None:
        """How busy a backend is, say two reporters and a forger, in every region."""
        for place in self.stack.nodes:
            for token in (*self._reporters, "tgl_forged"):
                report, headers = {"backend": "reports", "cpu": cpu}, {"X-Tidegate-Token": token}
                answer = httpx.post(f"{place.url}/v1/load", json=report, headers=headers, trust_env=False)
                assert answer.is_success is (token in self._reporters), answer.text

    def _overloaded(self) -> bool:
        """Report a backend as far too busy once more; whether every node sheds."""
        self._report_load(20.0)
        time.sleep(0.3)
        found = [httpx.get(f"{place.url}/metrics", trust_env=False).text for place in self.stack.nodes]
        return all(re.search(r"^tidegate_load_shed_units_total{.*} [1-9]", text, re.MULTILINE) for text in found)

    def _store_of(self, region: str) -> psutil.Process:
        port = self.stack.part("data-plane", self.stack.node(region).name).environ()["TIDEGATE_REDIS_URL"]
        wanted = int(port.rsplit(":", 1)[1].split("/")[0])
        for process in self.stack.processes():
            listens = {one.laddr.port for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN}
            if wanted in listens:
                return process
        raise AssertionError(f"no store listens on {wanted}")

    def _wait_for_scrapes(self) -> None:
        after_s = time.time()

        def scraped() -> bool:
            found = self.prometheus.values("timestamp(up)")
            return bool(found) and min(at_s for _, at_s in found) > after_s

        wait_for(scraped, 15, "Prometheus to scrape everything once more")


def paused(process: psutil.Process) -> None:
    """Have a process stand still for a moment."""
    process.suspend()
    try:
        time.sleep(PAUSED_S)
    finally:
        process.resume()


def targets(stack: Stack) -> dict[str, list[str]]:
    """What Prometheus scrapes, by region; the control plane under the empty name."""
    found: dict[str, list[str]] = {"": [f"127.0.0.1:{stack.options.control_plane_port}"]}
    for place in (*stack.nodes, *stack.agents):
        found.setdefault(place.region, []).append(f"127.0.0.1:{place.port}")
    return found
