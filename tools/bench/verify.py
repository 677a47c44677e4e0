"""Before a node is measured: does it decide, count in the store and tell everything? Else its figures mean nothing."""

import httpx

from tools.bench.errors import BenchError
from tools.bench.variant import Server
from tools.bench.workload import LIMITS, PLENTY, callers, request_body

HEADERS = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "ratelimit-policy", "ratelimit")


def verify_node(server: Server) -> None:
    """Ask twice for a client of each plan; raise ``BenchError`` with what is wrong."""
    for plan in server.variant.plans:
        caller = next(callers(plan))
        first, second = (_ask(server, request_body(caller)) for _ in range(2))
        answer, again = first.json(), second.json()
        wanted = {"allowed": True, "client": caller.client, "plan": plan, "limit": PLENTY, "degraded": False}
        wrong = {name: answer.get(name) for name, value in wanted.items() if answer.get(name) != value}
        if wrong:
            raise BenchError(f"{server.variant.name} answers {wrong} where {wanted} is right")
        if again["remaining"] != answer["remaining"] - 1:
            raise BenchError(f"{server.variant.name} does not count: {answer['remaining']}, then {again['remaining']}")
        missing = [name for name in HEADERS if name not in first.headers]
        shown = first.headers.get("ratelimit", "").count(";r=")
        if missing or shown != len(LIMITS[plan]):
            raise BenchError(f"{server.variant.name} shows {shown} limits of plan {plan}, and lacks {missing}")


def _ask(server: Server, body: bytes) -> httpx.Response:
    response = httpx.post(
        server.url + server.variant.path, content=body, headers={"content-type": "application/json"},
        timeout=5, trust_env=False,
    )  # fmt: skip
    if response.status_code != 200:
        raise BenchError(f"{server.variant.name} answers {response.status_code}: {response.text}")
    return response
