"""Time series follow from the code and the names of limits: clients, endpoints and addresses add none."""

from prometheus_client.parser import text_string_to_metric_families

from data_plane.metrics.exposition import MOST_LABEL_VALUES, NodeMetrics, counter_by, gauge_by
from testing.node import key_of, node_client, rule
from tidegate.contract.config import Client, Endpoint, Plan

CLIENTS, ENDPOINTS, BATCH = 10_000, 5_000, 1_000
CONFIG = [
    Plan(plan="p", limits=(rule(1, "hourly", 5), rule(2, "trial", 1, shadow=True))),
    Plan(plan="anonymous", limits=(rule(3, "per-ip", 1, scope="ip"),)),
    *(Client(client=f"client-{n}", plan="p") for n in range(CLIENTS)),
    *(key_of(f"client-{n}", f"tg_{n}") for n in range(0, CLIENTS, 2)),
    *(Endpoint(endpoint=f"endpoint-{n}", method="GET", path=f"/{n}/{{id}}") for n in range(ENDPOINTS)),
]


async def series(client) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    text = (await client.get("/metrics")).text
    return {
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_ten_thousand_clients_and_five_thousand_endpoints_add_no_series(tmp_path, valkey_url):
    async with node_client(tmp_path, valkey_url, CONFIG, redis_deadline_ms=10_000, log_denials_per_s=0) as client:

        async def ask(checks) -> list[bool]:
            answer = await client.post("/v1/check/batch", json={"checks": checks}, timeout=60)
            return [decision["allowed"] for decision in answer.json()["decisions"]]

        few = [{"client": "client-1", "endpoint": "endpoint-1"}] * 6 + [{"ip": "192.0.2.1"}] * 2
        assert await ask(few) == [True] * 5 + [False] + [True, False]
        before = await series(client)
        for begin in range(0, CLIENTS, BATCH):
            checks = [
                {"client": f"client-{n}", "method": "GET", "path": f"/{n % ENDPOINTS}/{n}", "ip": f"10.0.{n % 250}.1"}
                for n in range(begin, begin + BATCH - 100)
            ]
            checks += [{"api_key": f"tg_unknown_{n}", "path": f"/nowhere/{n}", "ip": f"10.1.{n}.1"} for n in range(100)]
            await ask(checks)
        after = await series(client)
    assert after == before
    assert len(after) < 150


def test_values_of_a_label_beyond_the_bound_are_counted_together_and_no_counter_falls():
    counts = {f"limit-{n}": 1 for n in range(MOST_LABEL_VALUES)}
    metrics = NodeMetrics()
    metrics.add(lambda: [counter_by("blocked", "", "policy", counts), gauge_by("load", "", "backend", counts)])

    def samples(name) -> dict[str, float]:
        families = text_string_to_metric_families(metrics.render().decode())
        family = next(family for family in families if family.name == name)
        return {next(iter(sample.labels.values())): sample.value for sample in family.samples}

    before = samples("blocked")
    assert "_other" not in before
    counts |= {f"late-{n}": 2 for n in range(10)}
    counts["limit-0"] += 1
    after = samples("blocked")
    assert after.pop("_other") == 20
    assert after == {**before, "limit-0": 2}
    assert len(samples("load")) == MOST_LABEL_VALUES
