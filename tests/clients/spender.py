"""A process that spends leases until it is killed; in a file of its own because a new process imports what it runs."""

from multiprocessing.connection import Connection

from tidegate_client import Check, Options, Tidegate


def spend(urls: tuple[str, ...], told: "Connection[int]") -> None:
    """Admit as much as one gets, telling of each admission (1) and of each denial by a node (0) before the next."""
    options = Options(urls=urls, timeout_s=5.0, on_failure="closed", leases=True, lease_s=2.0)
    limiter = Tidegate(options)
    check = Check(api_key="tg_acme", endpoint="get-user")
    while True:
        decision = limiter.decide(check)
        if decision.allowed:
            told.send(1)
        elif decision.source == "node":
            told.send(0)
