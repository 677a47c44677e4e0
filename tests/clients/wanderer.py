"""A process whose client meets one event loop after the other: ``python -m tests.clients.wanderer URL [leases]``."""

import asyncio
import sys

from tidegate_client import AsyncTidegate, Check, Options

CHECK = Check(api_key="tg_acme", endpoint="get-user")


def wander(url: str, *, leases: bool) -> int:
    """How many questions failed. Raises where a node does not answer at all."""
    limiter = AsyncTidegate(Options(urls=(url,), timeout_s=5.0, on_failure="raise", leases=leases))
    own = "lease" if leases else "node"

    async def ask(check: Check) -> None:
        while (await limiter.decide(check)).source != own:
            pass
        async with limiter.reserve(5, api_key="tg_acme") as held:
            assert held.allowed
            held.cost = 1

    for nth in range(4):
        asyncio.run(ask(CHECK if nth % 2 else CHECK._replace(endpoint="export")))
    # One that ends with all under way, as a test's may.
    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.wait({loop.create_task(limiter.decide(Check(api_key="k")))}, timeout=0))
    loop.close()
    asyncio.run(ask(CHECK))
    asyncio.run(limiter.aclose())
    return limiter.failures


if __name__ == "__main__":
    sys.stdout.write(f"failures={wander(sys.argv[1], leases='leases' in sys.argv[2:])}\n")
