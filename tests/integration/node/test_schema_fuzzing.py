"""A schema fuzzer against a running node, on a real store: decisions, leases, reservations, reports of load."""

import pytest

from testing.fuzzer import fuzzed
from testing.node import GATEWAY_TOKEN, key_of, node_client, rule
from tidegate.contract.config import Client, Endpoint, Gateway, Plan
from tidegate.contract.credentials import make_credential, secret_sha256
from tidegate.contract.load import AdaptivePolicy, Backend, Reporter

SECRET = make_credential("reporter", bytes(range(2, 34)))
CONFIG = [
    Plan(plan="p", limits=(rule(1, "hourly", 100),)),
    Client(client="acme", plan="p"),
    key_of("acme", "tg_acme"),
    AdaptivePolicy(policy="protect", min_reporters=1),
    Backend(backend="users", adaptive="protect"),
    Endpoint(endpoint="get-user", method="GET", path="/users/{id}", backend="users"),
    Gateway(sha256=secret_sha256(GATEWAY_TOKEN), gateway="edge"),
    Reporter(reporter="lb", sha256=secret_sha256(SECRET), backends=("users",)),
]
PHASES = ("--phases=examples,coverage,fuzzing", "--max-examples=3")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("lane", [True, False], ids=["lane", "asgi"])
async def test_a_fuzzer_finds_nothing(tmp_path, valkey_url, lane):
    async with node_client(tmp_path, valkey_url, CONFIG, lane=lane, trust="token") as node:
        url = str(node.base_url).rstrip("/")
        for paths, token in (("check|check/batch|leases.*|reservations.*|report", GATEWAY_TOKEN), ("load", SECRET)):
            headers = {"x-tidegate-token": token}
            found = await fuzzed(url, headers, tmp_path, f"--include-path-regex=^/v1/({paths})$", *PHASES)
            assert found.cases
