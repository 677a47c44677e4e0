"""Jobs run on one replica, are visible, can be asked for, and move when the leader is gone."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from control_plane.database import Database
from control_plane.errors import UnavailableError
from control_plane.jobs import repository
from control_plane.jobs.leadership import Leadership
from control_plane.jobs.registry import Job, Registry
from control_plane.jobs.runner import JobRunner
from control_plane.metrics import Metrics
from control_plane.settings import Settings
from tests.integration.control_plane.conftest import JOBS, client_of
from tidegate.stack.postgres import PostgresServer

WAIT_S = 15.0


@pytest.fixture
async def database(make_settings: Callable[..., Settings]) -> AsyncIterator[Database]:
    url = make_settings().database_url.get_secret_value()
    database = Database(url, connect_timeout_s=10.0, command_timeout_s=10.0, pool_size=5)
    yield database
    await database.close()


@asynccontextmanager
async def standing(
    database: Database, *jobs: Job, replica: str = "one", clock: Callable[[], float] = time.time
) -> AsyncIterator[Leadership]:
    """A replica that stands for leader with these jobs."""
    leadership = Leadership(database, JobRunner(database, Registry(jobs), replica, Metrics(), clock).lead)
    task = asyncio.create_task(leadership.run())
    try:
        yield leadership
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.01)


async def record(database: Database, job: str) -> repository.JobRow | None:
    async with database.read() as session:
        return await repository.row(session, job)


async def until_recorded(database: Database, job: str, holds: Callable[[repository.JobRow], Any]) -> repository.JobRow:
    async with asyncio.timeout(WAIT_S):
        while True:
            row = await record(database, job)
            if row is not None and holds(row):
                return row
            await asyncio.sleep(0.01)


class Counting:
    """A job's work that counts its runs and can be held in the middle."""

    def __init__(self) -> None:
        self.runs = 0
        self.cancelled = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def __call__(self) -> str:
        self.runs += 1
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return f"run {self.runs}"


async def ask(database: Database, job: str) -> None:
    async with database.transaction() as session:
        await repository.request(session, job, "somebody")


async def test_a_job_runs_when_due_and_its_run_is_recorded(database: Database) -> None:
    often, seldom = Counting(), Counting()
    async with standing(database, Job("often", 0.05, often), Job("seldom", 3600, seldom)):
        await until(lambda: often.runs >= 3)
        row = await until_recorded(database, "seldom", lambda row: row.finished_at)
    assert (row.outcome, row.detail, row.runs, row.failures, row.replica) == ("done", "run 1", 1, 0, "one")
    assert row.next_run_at is not None
    assert row.started_at is not None
    assert 3500 < (row.next_run_at - row.started_at).total_seconds() <= 3601
    assert seldom.runs == 1


def failing(*errors: Exception) -> Callable[[], Awaitable[str]]:
    """Work that fails with each of these first."""
    left = list(errors)

    async def work() -> str:
        if left:
            raise left.pop(0)
        return "well"

    return work


async def test_a_failure_is_recorded_and_the_next_run_comes(database: Database) -> None:
    work = failing(UnavailableError("The other side is away."), ValueError("a secret that nobody may see"))
    async with standing(database, Job("shaky", 3600, work)):
        first = await until_recorded(database, "shaky", lambda row: row.runs == 1)
        await ask(database, "shaky")
        second = await until_recorded(database, "shaky", lambda row: row.runs == 2)
        await ask(database, "shaky")
        third = await until_recorded(database, "shaky", lambda row: row.runs == 3)
    assert (first.outcome, first.detail) == ("failed", "The other side is away.")
    assert (second.outcome, second.detail) == ("failed", "ValueError; the log has more.")
    assert (third.outcome, third.detail, third.failures) == ("done", "well", 2)


async def test_a_run_that_takes_too_long_is_ended(database: Database) -> None:
    stuck = Counting()
    stuck.go_on.clear()
    async with standing(database, Job("stuck", 3600, stuck, timeout_s=0.1)):
        row = await until_recorded(database, "stuck", lambda row: row.outcome)
    assert (row.outcome, row.detail) == ("failed", "The run took longer than 0.1 s.")
    assert stuck.cancelled == 1


async def test_a_job_takes_no_more_than_its_share_of_the_time_but_when_it_is_asked_for(database: Database) -> None:
    runs: list[tuple[float, float]] = []

    async def work() -> str:
        began, enough = time.monotonic(), often.runs + 20
        await until(lambda: often.runs >= enough)
        runs.append((began, time.monotonic()))
        return "done"

    often = Counting()
    async with standing(database, Job("often", 0.01, often), Job("heavy", 0.01, work, share=0.2)):
        await until(lambda: len(runs) == 2)
        await until_recorded(database, "heavy", lambda row: row.runs == 2)
        await ask(database, "heavy")
        await until(lambda: len(runs) == 3)
    (first_began, first_ended), (second_began, second_ended), (third_began, _) = runs
    assert second_began - first_ended >= 4 * (first_ended - first_began)
    assert third_began - second_ended < 4 * (second_ended - second_began)


async def test_a_job_that_has_nothing_to_do_is_left_out_and_not_recorded(database: Database) -> None:
    idle_after = 3
    work, often = Counting(), Counting()

    async def idle() -> bool:
        return work.runs == idle_after

    job = Job("work", 0.05, work, idle=idle)
    async with standing(database, job, Job("often", 0.05, often)):
        last = await until_recorded(database, "work", lambda row: row.runs == idle_after)
        assert last.next_run_at is None
        enough = often.runs + 5
        await until(lambda: often.runs >= enough)
        now = await record(database, "work")
        assert now is not None
        assert (now.runs, now.started_at, work.runs) == (idle_after, last.started_at, idle_after)
        await ask(database, "work")
        await until(lambda: work.runs >= idle_after + 3)


async def test_a_failed_run_is_followed_by_another_though_there_is_nothing_to_do(database: Database) -> None:
    work = failing(UnavailableError("The other side is away."))

    async def idle() -> bool:
        return True

    async with standing(database, Job("shaky", 0.05, work, idle=idle)):
        row = await until_recorded(database, "shaky", lambda row: row.runs == 2)
    assert (row.outcome, row.failures, row.next_run_at) == ("done", 1, None)


async def until_counted(api: httpx.AsyncClient, jobs: Sequence[str], count: int) -> None:
    """Until each of the jobs has had its turn so often, whether it ran or was left out."""
    async with asyncio.timeout(WAIT_S):
        while True:
            text = (await api.get("/metrics", headers={"Authorization": ""})).text
            runs = 'tidegate_control_plane_job_runs_total{name="%s",outcome="done"} '
            if all(float(text.partition(runs % job)[2].partition("\n")[0]) >= count for job in jobs):
                return
            await asyncio.sleep(0.1)


async def test_an_idle_control_plane_waits_for_a_revision_and_records_nothing(api: httpx.AsyncClient) -> None:
    every_second = ("quota-moves", "roll-outs")
    await until_counted(api, every_second, 1)
    before = [(await api.get(f"/v1/jobs/{job}")).json() for job in every_second]
    await until_counted(api, every_second, 4)
    assert [(await api.get(f"/v1/jobs/{job}")).json() for job in every_second] == before
    assert before[0]["next_run_at"] is None
    await api.put("/v1/plans/free", json={})
    async with asyncio.timeout(WAIT_S):
        while (await api.get("/v1/jobs/quota-moves")).json()["runs"] == before[0]["runs"]:
            await asyncio.sleep(0.05)


async def test_jobs_that_look_for_something_to_do_record_nothing_until_there_is(
    make_settings: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
    postgres_server: PostgresServer,
    database_name: str,
) -> None:
    def sql(statement: str) -> str:
        return postgres_server.execute(statement, database=database_name)

    every = ("upkeep.expiry.BLOCKS_EVERY_S", "nodes.jobs.EVERY_S", "upkeep.expiry.EVERY_S")
    for name in (*every, "usage.webhooks.jobs.FIND_EVERY_S", "usage.webhooks.jobs.DELIVER_EVERY_S"):
        monkeypatch.setattr(f"control_plane.{name}", 0.1)
    jobs = ("ended-blocks", "expiry", "node-liveness", "usage-alerts", "usage-webhooks")
    async with client_of(make_settings()) as api:
        await until_counted(api, jobs, 2)
        before = [(await api.get(f"/v1/jobs/{job}")).json() for job in jobs]
        assert [(job["running"], job["next_run_at"]) for job in before] == [(False, None)] * len(jobs)
        await until_counted(api, jobs, 6)
        assert [(await api.get(f"/v1/jobs/{job}")).json() for job in jobs] == before
        ago = "now() - interval '1 hour'"
        await asyncio.to_thread(
            sql,
            f"INSERT INTO blocks (block, client, reason_class, expires_at) VALUES ('old', 'acme', 'abuse', {ago});"
            "INSERT INTO nodes (region, node, version, applied_revision, stream, last_seen)"
            f" VALUES ('us-east', 'lost', '', 0, 'x', {ago});"
            "INSERT INTO tokens (token_id, name, role, sha256, prefix, expires_at)"
            f" VALUES ('t', 't', 'viewer', repeat('0', 64), 'x', {ago});"
            "INSERT INTO usage_webhooks (webhook, url, thresholds, enabled, salt)"
            " VALUES ('ops', 'http://127.0.0.1:9/', '[1]', true, '');"
            "INSERT INTO usage_alerts (alert, webhook, client, plan, limit_name, window_start, percent, used,"
            f" \"limit\", attempts, due_at) VALUES ('a', 'ops', 'acme', 'free', 'hourly', now(), 80, 8, 10, 15, {ago})",
        )
        async with asyncio.timeout(WAIT_S):
            for job, was in zip(jobs, before, strict=True):
                while (await api.get(f"/v1/jobs/{job}")).json()["runs"] == was["runs"]:
                    await asyncio.sleep(0.05)


async def test_jobs_are_planned_anew_when_the_clock_is_set_back(database: Database) -> None:
    """A scheduler that planned a run at 12:10 would let it wait for two hours where 12:00 becomes 10:10."""
    set_by_s = 0.0
    often, seldom = Counting(), Counting()
    jobs = Job("often", 0.05, often), Job("seldom", 3600, seldom)
    async with standing(database, *jobs, clock=lambda: time.time() + set_by_s) as leadership:
        for step_s in (7_200.0, 0.0):
            await until(lambda: leadership.leads and often.runs)
            set_by_s = step_s
            await ask(database, "seldom")  # it looks at its clock once more
            await until_recorded(database, "seldom", lambda row: row.runs >= 2)
        await until(lambda: not leadership.leads)
        often.runs = 0
        await until(lambda: often.runs)


async def test_one_leads_and_asking_while_it_runs_means_once_more(database: Database) -> None:
    ours, theirs = Counting(), Counting()
    async with standing(database, Job("work", 3600, ours)) as one:
        await until(lambda: ours.runs == 1)
        async with standing(database, Job("work", 3600, theirs), replica="two") as two:
            ours.go_on.clear()
            await ask(database, "work")
            await until(lambda: ours.runs == 2)
            await ask(database, "work")
            await ask(database, "work")
            await until_recorded(database, "work", lambda row: row.requested_at > row.started_at)
            assert ours.runs == 2
            ours.go_on.set()
            await until(lambda: ours.runs == 3)
            await until_recorded(database, "work", lambda row: row.runs == 3)
            assert (one.leads, two.leads, theirs.runs) == (True, False, 0)


async def test_a_leader_whose_connection_is_cut_stops_at_once_and_another_takes_over(
    database: Database, postgres_server: PostgresServer
) -> None:
    ours, theirs = Counting(), Counting()
    ours.go_on.clear()
    async with standing(database, Job("work", 3600, ours)) as one:
        await until(lambda: ours.runs == 1)
        async with standing(database, Job("work", 3600, theirs), replica="two") as two:
            # the replica that was first comes back only once another had its chance
            await asyncio.to_thread(
                postgres_server.execute,
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted",
            )
            await until(lambda: ours.cancelled == 1)
            # the run that was cut short is not lost: whoever leads next repeats it
            await until(lambda: theirs.runs == 1 or ours.runs == 2)
            assert one.leads != two.leads
            ours.go_on.set()
            await until_recorded(database, "work", lambda row: row.outcome == "done")


async def test_jobs_are_seen_and_run_through_the_api(make_settings: Callable[..., Settings]) -> None:
    # two replicas: the one that is asked need not lead
    async with client_of(make_settings(replica="a")) as one, client_of(make_settings(replica="b")) as two:
        async with asyncio.timeout(WAIT_S):
            while not (listing := (await two.get("/v1/jobs")).json())["leader"]:
                await asyncio.sleep(0.02)
        assert listing["leader"]["replica"] == "a"
        names = [item["job"] for item in listing["items"]]
        assert names == list(JOBS)
        for client in (one, two):
            before = (await client.get("/v1/jobs/drift-check")).json()
            answer = await client.post("/v1/jobs/drift-check/run", headers={"Prefer": "wait=10"})
            assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait")
            view = answer.json()
            assert (view["last_outcome"], view["replica"], view["requested_by"]) == ("done", "a", "first-admin")
            assert view["runs"] > before["runs"]
        assert (await one.post("/v1/jobs/drift-check/run")).status_code == 202
        assert (await one.post("/v1/jobs/nothing/run")).status_code == 404
        assert (await one.get("/v1/jobs/nothing")).status_code == 404


async def test_running_a_job_needs_an_operator(api: httpx.AsyncClient) -> None:
    viewer = (await api.post("/v1/tokens", json={"name": "eyes", "role": "viewer"})).json()["secret"]
    headers = {"Authorization": f"Bearer {viewer}"}
    assert (await api.get("/v1/jobs", headers=headers)).status_code == 200
    assert (await api.post("/v1/jobs/drift-check/run", headers=headers)).status_code == 403


async def test_the_audit_log_says_why_a_job_was_run(api: httpx.AsyncClient) -> None:
    why = {"X-Tidegate-Reason": "ticket 42, Zoë".encode()}
    assert (await api.post("/v1/jobs/expiry/run", headers=why)).status_code == 202
    (entry,) = (await api.get("/v1/audit", params={"resource": "job"})).json()["items"]
    assert (entry["action"], entry["name"], entry["reason"]) == ("run", "expiry", "ticket 42, Zoë")


async def test_metrics_say_what_happened(api: httpx.AsyncClient) -> None:
    await api.put("/v1/plans/p", json={})
    await api.get("/v1/plans/no-such-plan")
    await api.get("/nowhere")
    text = (await api.get("/metrics", headers={"Authorization": ""})).text
    for line in (
        'tidegate_control_plane_requests_total{method="PUT",route="/v1/plans/{plan}",status="201"} 1.0',
        'tidegate_control_plane_requests_total{method="GET",route="/v1/plans/{plan}",status="404"} 1.0',
        'tidegate_control_plane_requests_total{method="GET",route="unmatched",status="404"} 1.0',
        "tidegate_control_plane_connected_nodes 0.0",
    ):
        assert line in text


async def test_a_run_asked_for_again_under_its_key_is_not_run_again(api: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "night-shift", "Prefer": "wait=15"}
    first = await api.post("/v1/jobs/drift-check/run", headers=key)
    assert (first.status_code, first.json()["last_outcome"]) == (200, "done"), first.text
    for _ in range(3):
        again = await api.post("/v1/jobs/drift-check/run", headers=key)
        assert (again.status_code, again.json()) == (200, first.json())
    asked = [entry for entry in (await api.get("/v1/audit")).json()["items"] if entry["resource"] == "job"]
    assert len(asked) == 1
    other = await api.post("/v1/jobs/expiry/run", headers=key)
    assert (other.status_code, other.json()["errors"][0]["field"]) == (422, "Idempotency-Key")
    new = await api.post("/v1/jobs/drift-check/run", headers=key | {"Idempotency-Key": "day-shift"})
    assert new.json()["runs"] > first.json()["runs"]
    # at the same moment too
    answers = await asyncio.gather(
        *(api.post("/v1/jobs/expiry/run", headers={"Idempotency-Key": "noon"}) for _ in range(5))
    )
    assert {answer.status_code for answer in answers} <= {202, 409}
    asked = (await api.get("/v1/audit", params={"name": "expiry"})).json()["items"]
    assert len(asked) == 1
