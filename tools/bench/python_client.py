"""`python -m tools.bench.python_client`: what the Python client costs, with leases or micro-batches, before an app.

Run by hand; nothing is gated by time. Everything runs on this machine: two client processes, one node, one Valkey.
"""

import asyncio
import contextlib
import dataclasses
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from fastapi import FastAPI
from flask import Flask
from rich.console import Console
from rich.table import Table
from werkzeug.test import create_environ

from testing.node import document_of
from tidegate.contract.config import Client, Endpoint, Plan
from tidegate.contract.limits import LimitRule
from tidegate_client import AsyncTidegate, Check, Options, Tidegate
from tidegate_client.asgi import TidegateMiddleware
from tidegate_client.wsgi import TidegateFlask
from tools.bench.errors import BenchError
from tools.bench.machine import process_cpu_s
from tools.bench.place import Place, prepared_place
from tools.bench.snapshot import write_snapshot
from tools.bench.variant import Server, running
from tools.bench.variants import tidegate_lane
from tools.bench.workload import REGION

CHECK = Check(client="acme", endpoint="page")
PLENTY = 10**10
HOUR_US = 3_600_000_000
WARM_S = 0.5
ASKERS = 1_000


def main(
    *, seconds: Annotated[float, typer.Option(min=0.5, max=60, help="How long each run takes.")] = 3.0,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:  # fmt: skip
    """Measure the Python client."""
    console = Console(width=140)
    table = Table("what", "figure", title="The Python client")
    figures: dict[str, Any] = {}

    def note(what: str, value: float, text: str) -> None:
        figures[what] = value
        table.add_row(what, text)

    with prepared_place() as place:
        with limited(place, PLENTY) as server:
            _leases(server, seconds, note)
            _batches(server, seconds, note)
            _middleware(server, note)
        with limited(place, limit := 3_000_000) as server:
            _exactness(server, limit, seconds, note)
    console.print(table)
    if json is not None:
        json.write_bytes(msgspec.json.format(msgspec.json.encode(figures)))


@contextlib.contextmanager
def limited(place: Place, limit: int) -> Iterator[Server]:
    """A node, bound to no core, whose one client has ``limit`` requests an hour."""
    hourly = LimitRule(id=limit, name="hourly", limit=limit, window_us=HOUR_US, mode="regional", shares={REGION: limit})
    values = [
        Plan(plan="p", limits=(hourly,)), Client(client="acme", plan="p"),
        Endpoint(endpoint="page", method="GET", path="/page"),
    ]  # fmt: skip
    snapshot = place.directory / f"snapshot-{limit}"
    key = asyncio.run(write_snapshot(snapshot, map(document_of, values)))
    with running(tidegate_lane.VARIANT, dataclasses.replace(place, snapshot=snapshot, public_key=key)) as server:
        os.sched_setaffinity(server.pid, os.sched_getaffinity(0))
        yield server


def _options(url: str, **members: Any) -> Options:
    return Options(**{"urls": (url,), "timeout_s": 5.0, "on_failure": "raise", **members})


def _spend(url: str, seconds: float, start_at: float, told: "Connection[tuple[int, int]]") -> None:
    """Decide as fast as one process can; tell how many were allowed and how many asked for."""
    with Tidegate(_options(url, leases=True)) as limiter:
        time.sleep(max(0.0, start_at - WARM_S - time.time()))
        asked = allowed = 0
        while time.time() < start_at:  # warm: the rate is known and a lease is held when time starts
            allowed += limiter.decide(CHECK).allowed
        told.send((0, allowed))
        allowed = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for _ in range(1_000):
                allowed += limiter.decide(CHECK).allowed
            asked += 1_000
            told.send((1_000, allowed))
            allowed = 0
    told.send((0, 0))


def _spenders(url: str, seconds: float, kill_after: int | None) -> tuple[int, int, list[int]]:
    """Two processes for ``seconds``: asked, allowed (as told), and what each was told it might; one may be killed."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    start_at = time.time() + 3.0
    for _ in range(2):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_spend, args=(url, seconds, start_at, theirs))
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    asked = allowed = 0
    deadline = time.monotonic() + seconds + 30
    open_pipes = list(pipes)
    while open_pipes and time.monotonic() < deadline:
        for pipe in multiprocessing.connection.wait(open_pipes, timeout=0.5):
            try:
                more_asked, more_allowed = pipe.recv()  # type: ignore[union-attr,call-arg]  # these are connections
            except EOFError:
                open_pipes.remove(pipe)  # type: ignore[arg-type]  # as above
                continue
            asked, allowed = asked + more_asked, allowed + more_allowed
            if kill_after is not None and allowed > kill_after and processes[0].is_alive():
                os.kill(processes[0].pid or 0, signal.SIGKILL)
                kill_after = None
    for process in processes:
        process.join(10)
    return asked, allowed, [process.exitcode or 0 for process in processes]


def _leases(server: Server, seconds: float, note: Callable[[str, float, str], None]) -> None:
    asked, allowed, _ = _spenders(server.url, seconds, None)
    note("leases, 2 processes: decisions a second", asked / seconds, f"{asked / seconds:,.0f} ({allowed:,} allowed)")


def _exactness(server: Server, limit: int, seconds: float, note: Callable[[str, float, str], None]) -> None:
    asked, allowed, codes = _spenders(server.url, seconds, limit // 3)
    if allowed > limit:
        raise BenchError(f"{allowed:,} of {limit:,} were admitted")
    what = f"one of 2 processes killed (exit codes {codes}), limit {limit:,}: allowed"
    note(
        what,
        allowed,
        f"{allowed:,}, {allowed / limit:.1%} of the limit, never above it ({asked:,} asked after warming up)",
    )


def _batches(server: Server, seconds: float, note: Callable[[str, float, str], None]) -> None:
    decided, cpu_s = asyncio.run(_decide_for(server, seconds))
    what = "micro-batches without leases: decisions a second and core of the node"
    note(what, decided / cpu_s, f"{decided / cpu_s:,.0f} ({decided / seconds:,.0f}/s seen, one client process)")


async def _decide_for(server: Server, seconds: float) -> tuple[int, float]:
    decided = 0
    async with AsyncTidegate(_options(server.url)) as limiter:
        await limiter.decide(CHECK)
        before, end = process_cpu_s(server.pid), time.monotonic() + seconds

        async def ask() -> None:
            nonlocal decided
            while time.monotonic() < end:
                await limiter.decide(CHECK)
                decided += 1

        await asyncio.gather(*(ask() for _ in range(ASKERS)))
        return decided, process_cpu_s(server.pid) - before


def _middleware(server: Server, note: Callable[[str, float, str], None]) -> None:
    for framework, times in (("FastAPI", asyncio.run(_app_times(server.url))), ("Flask", _flask_times(server.url))):
        beside, leased, asked = times
        note(f"{framework} route, median µs a request, without the middleware", beside, f"{beside:,.1f}")
        for what, took in (("with leases", leased), ("asking the node each time", asked)):
            text = f"+{took - beside:,.1f} ({took / beside:.2f} x)"
            note(f"{framework} with the middleware, {what}: µs more", took - beside, text)


async def _app_times(url: str) -> tuple[float, float, float]:
    """Median time of a request to an application by itself, with leases, and with a question for each request."""
    app = FastAPI()

    @app.get("/page")
    async def page() -> dict[str, bool]:
        return {"page": True}

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": "/page",
        "raw_path": b"/page", "query_string": b"", "headers": [], "scheme": "http", "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80), "root_path": "",
    }  # fmt: skip

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_message: Any) -> None:
        pass

    async with AsyncTidegate(_options(url, leases=True)) as leasing, AsyncTidegate(_options(url)) as asking:
        apps: list[Any] = [app, *(TidegateMiddleware(app, one, identify=lambda _: CHECK) for one in (leasing, asking))]
        times: list[list[float]] = [[], [], []]
        for _ in range(2_000):
            for position, one in enumerate(apps):
                began = time.perf_counter()
                await one(dict(scope), receive, send)
                times[position].append((time.perf_counter() - began) * 1e6)
        return tuple(statistics.median(one[500:]) for one in times)  # type: ignore[return-value]  # three


def _flask_times(url: str) -> tuple[float, float, float]:
    """The same for an application of Flask, called as WSGI servers do."""
    with Tidegate(_options(url, leases=True)) as leasing, Tidegate(_options(url)) as asking:
        apps = []
        for limiter in (None, leasing, asking):
            app = Flask("bench")
            app.add_url_rule("/page", view_func=lambda: {"page": True})
            if limiter is not None:
                TidegateFlask(app, limiter, identify=lambda: CHECK)
            apps.append(app)
        environ = create_environ("/page")
        times: list[list[float]] = [[], [], []]
        for _ in range(2_000):
            for position, app in enumerate(apps):
                began = time.perf_counter()
                for _part in app(dict(environ), lambda *_: None):  # type: ignore[arg-type]  # whoever answers writes nothing
                    pass
                times[position].append((time.perf_counter() - began) * 1e6)
        return tuple(statistics.median(one[500:]) for one in times)  # type: ignore[return-value]  # three


if __name__ == "__main__":
    typer.run(main)
