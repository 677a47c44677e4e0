"""The commands for daily work against a served control plane and a node that follows it, as a shell sees them."""

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from testing.control_plane import RunningControlPlane
from tests.integration.control_plane.conftest import ADMIN_TOKEN
from tidegate.cli import app
from tidegate.file.remote import Answer, ControlPlane


async def completed(served: RunningControlPlane, line: str, token: str = ADMIN_TOKEN) -> list[str]:
    """What bash offers for the last word of the line."""
    shell = {
        "_TIDEGATE_COMPLETE": "complete_bash",
        "COMP_WORDS": f"tidegate {line}",
        "COMP_CWORD": str(line.count(" ") + 1),
    }
    env = {"TIDEGATE_URL": served.url, "TIDEGATE_ADMIN_TOKEN": token}
    result = await asyncio.to_thread(CliRunner().invoke, app, [], prog_name="tidegate", env=env | shell)
    return result.stdout.split()


async def run(served: RunningControlPlane, line: str, *more: str, code: int = 0, token: str = ADMIN_TOKEN) -> Result:
    env = {"TIDEGATE_URL": served.url, "TIDEGATE_ADMIN_TOKEN": token, "COLUMNS": "300", "TERM": "dumb"}
    result = await asyncio.to_thread(CliRunner().invoke, app, [*line.split(), *more], env=env)
    assert result.exit_code == code, (line, result.output, result.exception)
    return result


async def answer(served: RunningControlPlane, line: str, *more: str) -> Any:
    return json.loads((await run(served, line, *more, "--json")).stdout)


async def test_a_plan_a_client_a_key_and_what_becomes_of_them(served: RunningControlPlane) -> None:
    async with served.node().following() as node:
        made = await answer(served, "plans create free --priority 10")
        assert made["result"] == {"plan": "free", "priority": 10, "limits": []}
        assert made["enforced_ms"] > 0
        line = "limits create hourly --plan free --limit 1000 --window-s 3600 --methods GET,POST"
        assert "enforced by every connected node after" in (await run(served, line)).stdout
        await run(served, "clients create acme --plan free --attribute tier=gold --attribute site=x")
        assert node.document("client", "acme")["plan"] == "free"

        changed = (await run(served, "limits set hourly --plan free --limit 2000 --shadow")).stdout
        assert "limit: 1000 -> 2000\nshadow: no -> yes\nrevision " in changed
        (limit,) = (await answer(served, "limits list --plan free"))["items"]
        assert (limit["window_s"], limit["match"]["methods"]) == (3600, ["GET", "POST"])
        await run(served, "limits set hourly --plan free --window hour --algorithm fixed_window")
        assert (await answer(served, "limits show hourly --plan free"))["window_s"] is None
        await run(served, "plans set free --priority 20")
        assert [one["name"] for one in (await answer(served, "plans show free"))["limits"]] == ["hourly"]

        await run(served, "clients set acme --status suspended --attribute site= --attribute lang=de")
        acme = await answer(served, "clients show acme")
        assert (acme["status"], acme["plan"], acme["attributes"]) == (
            "suspended",
            "free",
            {"tier": "gold", "lang": "de"},
        )
        await run(served, "clients set acme --unset attributes")
        assert (await answer(served, "clients show acme"))["attributes"] == {}
        both = await run(served, "clients set acme --external-id 7 --unset external_id", code=2)
        assert "--external-id: is given and unset" in both.output
        refused = await run(served, "plans set free --unset limits", code=2)
        assert "'limits' is none of priority" in refused.output
        assert "plan (--plan): Field required" in (await run(served, "clients set acme --unset plan", code=1)).output
        assert "acme" in (await run(served, "clients list --status suspended")).stdout
        assert (await run(served, "clients list --status active")).stdout == "none\n"

        key = (await answer(served, "keys create acme --name web --expires-at 2h"))["result"]
        found = await answer(served, f"keys find --prefix {key['secret'][:10]}")
        assert [one["key_id"] for one in found["items"]] == [key["key_id"]]
        await run(served, f"keys revoke acme {key['key_id']} --reason leaked")
        assert (await run(served, "keys list acme")).stdout == "none\n"
        audit = (await answer(served, "audit list --resource key --since 1h"))["items"]
        assert [(entry["action"], entry["reason"]) for entry in audit] == [("revoke", "leaked"), ("create", None)]


async def test_enforcement_at_night(served: RunningControlPlane) -> None:
    async with served.node().following():
        await run(served, "plans create free")
        await run(served, "limits create hourly --plan free --limit 10 --window-s 60")
        await run(served, "enforcement set --mode shadow --expires-at 30m", "--note", "too many denials")
        await run(served, "enforcement set --plan free --limit hourly --mode enforce")
        listed = (await answer(served, "enforcement list"))["items"]
        assert {one["target"]: one["mode"] for one in listed} == {"*": "shadow", "free/hourly": "enforce"}
        assert "--plan needs another name" in (await run(served, "enforcement delete --plan free", code=2)).output
        await run(served, "enforcement delete")
        assert [one["target"] for one in (await answer(served, "enforcement list"))["items"]] == ["free/hourly"]

        block = (await answer(served, "blocks create --ip 203.0.113.0/24 --reason-class abuse"))["result"]["block"]
        assert block in (await run(served, "blocks list --ip 203.0.113.7")).stdout
        await run(served, f"blocks delete {block}")
        newest = (await answer(served, "revisions list --rows 1"))["items"][0]["revision"]
        assert "node-1" in (await run(served, f"revisions show {newest}")).stdout
        assert "plan" in (await run(served, "revisions diff 3")).stdout
        would = await answer(served, f"revisions rollback {newest - 1} --dry-run")
        assert (would["revision"], [change["action"] for change in would["result"]["changes"]]) == (None, [])
        assert "last_outcome: done" in (await run(served, "jobs run drift-check")).stdout
        assert "node-1" in (await run(served, "nodes list --connected")).stdout


async def test_a_dry_run_shows_what_a_rollback_deletes_however_much_it_is(served: RunningControlPlane) -> None:
    back = f"revisions rollback {(await answer(served, 'plans create free', '--wait-s', '0'))['revision']}"
    for number in range(11):
        await served.admin.put(f"/v1/clients/c{number}", json={"plan": "free"})
    refused = await run(served, back, code=1)
    assert "allow_deletes (--allow-deletes): this would delete 11" in refused.output
    shown = await answer(served, f"{back} --dry-run")
    assert {change["action"] for change in shown["result"]["changes"]} == {"delete"}
    assert len(shown["result"]["changes"]) == 11
    assert "c10" in (await run(served, f"{back} --dry-run")).stdout
    await run(served, f"{back} --dry-run --allow-deletes 10", code=1)
    await run(served, f"{back} --no-dry-run", code=1)
    assert len((await answer(served, "clients list"))["items"]) == 11


async def test_a_canary_is_watched_and_released(served: RunningControlPlane) -> None:
    async with served.node("a").following(), served.node("b").following():
        await run(served, "plans create free")
        await run(served, "rollouts set-policy --mode canary --node-pause-s 600")
        begun = (await run(served, "plans set free --priority 3")).stdout
        number = (await answer(served, "rollouts list --state node"))["items"][0]["revision"]
        assert f"roll-out {number} began" in begun
        assert "free" in (await run(served, f"rollouts show {number}")).stdout
        await run(served, f"rollouts release {number}", "--reason", "looks good")
        assert (await answer(served, f"rollouts show {number}"))["state"] == "done"
        assert (await answer(served, "rollouts policy"))["node_pause_s"] == 600


async def test_exit_codes_and_words_of_refusals(served: RunningControlPlane) -> None:
    assert "no client named nobody" in (await run(served, "clients show nobody", code=4)).output
    assert "no client named nobody" in (await run(served, "clients set nobody --plan x", code=4)).output
    refused = (await run(served, "limits create x --limit 5 --window-s -1", code=1)).output
    assert "refused (422): window_s (--window-s): " in refused
    refused = (await run(served, "reporters create --name r --backends nowhere", code=1)).output
    assert "refused (422): backends[0] (--backends): there is no backend" in refused
    await run(served, "plans create free")
    assert "it exists already" in (await run(served, "plans create free", code=1)).output
    assert "Invalid value" in (await run(served, "clients list --status asleep", code=2)).output
    assert "must not be '..'" in (await run(served, "limits delete .. --plan free", code=2)).output
    assert "refused (401)" in (await run(served, "plans list", code=1, token="tga_wrong")).output
    async with served.node(acks=False).following():
        late = (await run(served, "plans set free --priority 1 --wait-s 1", code=3)).stdout
        assert "not enforced by every node within 1 s" in late
        await run(served, "plans set free --priority 2 --wait-s 0")


async def test_a_token_shown_once_and_lists_longer_than_a_page(
    served: RunningControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.admin.commands.MAX_PAGE", 10)
    token = (await answer(served, "tokens create --name support --role viewer"))["result"]
    assert token["secret"] not in (await run(served, "tokens list")).stdout
    assert "refused (403)" in (await run(served, "plans create free", code=1, token=token["secret"])).output
    await run(served, "plans create free")
    lines = "".join(json.dumps({"client": f"c{number:04}", "plan": "free"}) + "\n" for number in range(25))
    imported = await served.admin.post("/v1/clients/import", content=lines)
    assert imported.status_code == 200, imported.text
    assert len((await answer(served, "clients list"))["items"]) == 25
    short = await run(served, "clients list --rows 15")
    assert len(short.stdout.splitlines()) == 16
    assert "there are more than these 15" in short.stderr
    await run(served, "usage list --group-by day,client --from 7d")
    await run(served, "usage busiest --by denied")


async def test_shells_complete_commands_choices_and_names(served: RunningControlPlane) -> None:
    for name in ("free", "pro", "premium"):
        await run(served, f"plans create {name}")
    await run(served, "limits create hourly --plan pro --limit 1 --window-s 60")
    assert set(await completed(served, "plans s")) >= {"show", "set"}
    assert await completed(served, "enforcement set --mode sh") == ["shadow"]
    assert await completed(served, "plans set pr") == ["premium", "pro"]
    assert await completed(served, "limits set --plan pro ho") == ["hourly"]
    assert await completed(served, "limits set ho") == []
    assert await completed(served, "clients create acme --plan f") == ["free"]
    assert await completed(served, "plans set pr", token="") == []
    assert await completed(served, "plans set pr", token="tga_wrong") == []


async def test_nobody_overwrites_what_they_have_not_seen(
    served: RunningControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    await run(served, "plans create free")
    call = ControlPlane.call

    def beaten(self: ControlPlane, method: str, path: str, **rest: Any) -> Answer:
        if method == "PUT":
            call(self, method, path, body={"priority": 7})
        return call(self, method, path, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(ControlPlane, "call", beaten)
        assert "somebody changed it" in (await run(served, "plans set free --priority 1", code=1)).output
    assert (await answer(served, "plans show free"))["priority"] == 7
