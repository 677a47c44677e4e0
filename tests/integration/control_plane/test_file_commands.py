"""`tidegate apply`, `diff` and `export` against a served control plane, as a shell sees them."""

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from testing.control_plane import RunningControlPlane
from tests.integration.control_plane.conftest import ADMIN_TOKEN
from tidegate.cli import app

FILE = """\
version: 1
endpoints:
  get-user: { route: "GET /api/users/{id}" }
plans:
  free:
    priority: 10
    limits:
      hourly: { limit: 1000/h, mode: shared }
      burst: { limit: 10/s, burst: 20, algorithm: token_bucket }
  pro:
    limits:
      monthly: { limit: 5M/month }
clients:
  acme: { plan: pro, external_id: cus_123 }
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tidegate.yaml"
    path.write_text(FILE)
    return path


def write(path: Path, text: str) -> None:
    path.write_text(text)


async def run(served: RunningControlPlane, *arguments: str | Path, token: str = ADMIN_TOKEN) -> Result:
    env = {"TIDEGATE_URL": served.url, "TIDEGATE_ADMIN_TOKEN": token, "COLUMNS": "160", "TERM": "dumb"}
    return await asyncio.to_thread(CliRunner().invoke, app, [str(item) for item in arguments], env=env)


async def test_diff_apply_export_and_no_drift(served: RunningControlPlane, path: Path, tmp_path: Path) -> None:
    drift = await run(served, "diff", "-f", path)
    assert drift.exit_code == 2, drift.output
    assert "+ acme:" in drift.stdout
    assert "would be: 4 created (endpoints 1, plans 2, clients 1)" in drift.stdout
    applied = await run(served, "apply", "-f", path, "--reason", "first")
    assert applied.exit_code == 0, applied.output
    assert "4 created" in applied.stdout
    assert (await served.admin.get("/v1/revisions?limit=1")).json()["items"][0]["reason"] == "first"
    same = await run(served, "diff", "-f", path)
    assert (same.exit_code, same.stdout) == (0, "would be: nothing differs\n")

    out = tmp_path / "out.yaml"
    assert (await run(served, "export", "-o", out)).exit_code == 0
    assert "      hourly: {limit: 1000/h}\n" in out.read_text()
    assert (await run(served, "diff", "-f", out)).exit_code == 0
    as_json = await run(served, "export", "--json")
    write(out, as_json.stdout)
    assert (await run(served, "apply", "-f", out)).exit_code == 0
    assert json.loads(as_json.stdout)["clients"]["acme"] == {"plan": "pro", "external_id": "cus_123"}

    write(path, FILE.replace("1000/h", "2000/h").replace("cus_123", "cus_9"))
    changed = await run(served, "diff", "-f", path)
    assert changed.exit_code == 2
    assert '- limit: "1000/h"' in changed.stdout
    assert '+ limit: "2000/h"' in changed.stdout
    machine = json.loads((await run(served, "diff", "-f", path, "--json")).stdout)
    assert machine["counts"] == {"plans": {"update": 1}, "clients": {"update": 1}}


async def test_a_viewer_may_ask_what_differs_and_change_nothing(served: RunningControlPlane, path: Path) -> None:
    made = await served.admin.post("/v1/tokens", json={"name": "ci", "role": "viewer"})
    token = made.raise_for_status().json()["secret"]
    before = (await served.admin.get("/v1/config")).headers["etag"]
    drift = await run(served, "diff", "-f", path, token=token)
    assert drift.exit_code == 2, drift.output
    assert "would be: 4 created" in drift.stdout
    refused = await run(served, "apply", "-f", path, token=token)
    assert refused.exit_code == 1
    assert "refused (403)" in refused.stderr
    body = {"version": 1, "plans": {"free": {}}}
    with_viewer = {"Authorization": f"Bearer {token}"}
    tried = await served.admin.put("/v1/config?dry_run=true", json=body)
    asked = await served.admin.post("/v1/config/diff", json=body, headers=with_viewer)
    assert (asked.status_code, asked.json()) == (200, tried.json())
    stale = await served.admin.post("/v1/config/diff", json=body, headers=with_viewer | {"If-Match": '"4711"'})
    assert stale.status_code == 412
    assert (await served.admin.get("/v1/config")).headers["etag"] == before
    assert (await served.admin.get("/v1/plans")).json()["items"] == []


ERRORS = [
    (FILE.replace("mode: shared", "mode: sahred"), "tidegate.yaml:8: plans.free.limits.hourly.mode: "),
    (FILE.replace("plan: pro", "plan: prow"), "tidegate.yaml:14: clients.acme.plan: there is no plan named prow"),
    (FILE + "plans: {}\n", 'tidegate.yaml:15: found duplicate key "plans"'),
    (FILE + "colours: {}\n", "tidegate.yaml:15: colours: unknown field"),
    ("version: 1\nplans: [\n", "tidegate.yaml:3: is not YAML"),
    ("- 1\n", "must be a mapping"),
    ('{"version": 1, "plans": {"a": {}, "a": {}}}', 'found duplicate key "a"'),
]


async def test_errors_say_the_line_and_nothing_is_applied(served: RunningControlPlane, path: Path) -> None:
    for text, said in ERRORS:
        write(path, text)
        for command in ("diff", "apply"):
            refused = await run(served, command, "-f", path)
            assert refused.exit_code == 1, said
            assert said in refused.stderr.replace("\n", " ").replace("  ", " ") or said in refused.stderr
        assert (await served.admin.get("/v1/plans")).json()["items"] == [], said


async def test_a_wrong_token_and_a_wrong_address_are_errors(served: RunningControlPlane, path: Path) -> None:
    assert (await run(served, "diff", "-f", path, token="tga_wrong")).exit_code == 1
    nowhere = await run(served, "apply", "-f", path, "--url", "http://127.0.0.1:1")
    assert nowhere.exit_code == 1
    assert "no answer from http://127.0.0.1:1" in nowhere.stderr


async def test_a_stale_revision_is_refused(served: RunningControlPlane, path: Path) -> None:
    refused = await run(served, "apply", "-f", path, "--if-match", "4711")
    assert refused.exit_code == 1
    assert "refused (412)" in refused.stderr
    current = (await served.admin.get("/v1/config")).headers["etag"].strip('"')
    assert (await run(served, "apply", "-f", path, "--if-match", current)).exit_code == 0


async def test_progress_is_told_and_many_clients_are_pruned_by_number(served: RunningControlPlane, path: Path) -> None:
    clients = "".join(f"  c{number}: {{ plan: pro }}\n" for number in range(1_200))
    write(path, FILE + clients)
    made = await run(served, "apply", "-f", path)
    assert made.exit_code == 0, made.output
    assert "1,204 created" in made.stdout
    assert "1201/1201" in made.stderr
    write(path, FILE)
    refused = await run(served, "apply", "-f", path, "--prune", "clients")
    assert "allow_deletes=1200" in refused.stderr.replace("\n", "")
    gone = await run(served, "apply", "-f", path, "--prune", "clients", "--allow-deletes", "1200")
    assert gone.exit_code == 0
    assert "1,200 deleted" in gone.stdout


async def test_a_file_that_leaves_out_what_is_used_says_each_by_line(served: RunningControlPlane, path: Path) -> None:
    assert (await run(served, "apply", "-f", path)).exit_code == 0
    (await served.admin.put("/v1/plans/other", json={})).raise_for_status()
    (await served.admin.put("/v1/clients/globex", json={"plan": "free"})).raise_for_status()
    write(path, "version: 1\nplans:\n  starter: { limits: { hourly: { limit: 10/h } } }\n")
    refused = await run(served, "apply", "-f", path)
    assert refused.exit_code == 1
    lines = refused.stderr.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [[f"{path}:2", "plans.free"], [f"{path}:2", "plans.pro"]]
    for line in lines:
        assert line.endswith("it is left out, so it would be deleted, and may not go: It is still used by: clients.")
