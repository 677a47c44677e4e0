"""Values of labels that are closed sets of the code: docs/metrics.md names each, and none that is not there."""

import ast
import re
from pathlib import Path
from typing import get_args

from data_plane.decide.decision_tally import Tally
from data_plane.decide.pending_check import Refusal
from data_plane.holds.service import HoldTally
from data_plane.http.peer_handler import REFUSALS as PEER_REFUSALS
from data_plane.load.following import REFUSALS as LOAD_REFUSALS
from data_plane.metrics.families import of_decisions
from data_plane.store.redis.status import REASONS
from tidegate.contract.load import Reason as LoadReason

ROOT = Path(__file__).parents[2]
CLOSED = ("result", "reason", "kind", "outcome")


def described() -> dict[str, set[str]]:
    """For every metric of the page with such a label, the values that its row names."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|([^|]*)\|(.*)\|$", page, re.MULTILINE)
    return {
        name: set(re.findall(r"`([a-z_]+)`", meaning))
        for name, labels, meaning in rows
        if set(re.findall(r"`(\w+)`", labels)) & set(CLOSED)
    }


def literals(*places: tuple[str, str]) -> set[str]:
    """The words that a call of ``name``, or an index into it, is given in a file."""
    found = set()
    for file, name in places:
        said = False
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            if isinstance(node, ast.Call) and name in {getattr(node.func, "attr", ""), getattr(node.func, "id", "")}:
                word = node.args[0]
            elif isinstance(node, ast.Subscript) and getattr(node.value, "attr", "") == name:
                word = node.slice
                if isinstance(word, ast.Name):  # where the function that is called itself counts
                    continue
            else:
                continue
            for one in (word.body, word.orelse) if isinstance(word, ast.IfExp) else (word,):
                assert isinstance(one, ast.Constant), f"{file}: {ast.unparse(node)}"
                found.add(one.value)
            said = True
        assert said, f"{file} says nothing of {name}"
    return found


def test_every_value_of_a_closed_label_is_documented_and_no_other():
    decided = next(iter(of_decisions(Tally())))
    code = {
        "rate_limit_checks_total": {sample.labels["result"] for sample in decided.samples},
        "rate_limit_refused_total": {reason.value for reason in Refusal},
        "rate_limit_redis_errors_total": set(REASONS),
        "tidegate_holds_denied_total": set(HoldTally().denied),
        "tidegate_peer_messages_refused_total": literals(
            ("data_plane/http/peer_handler.py", "_refused"), ("data_plane/http/peer_handler.py", "refused_by_reason")
        ) | {"implausible_cell"},
        "tidegate_rights_refused_total": literals(("data_plane/rights/exchange.py", "refused")),
        "tidegate_load_reports_refused_total": literals(
            ("data_plane/http/load_handler.py", "_refused"), ("data_plane/load/following.py", "refused")
        ),
        "tidegate_load_pull_failures_total": literals(("data_plane/load/http_clients.py", "PullError")),
        "tidegate_load_reason": {*get_args(LoadReason), "none"},  # none: of its other label
        "tidegate_control_plane_frames_total": {"snapshot", "delta"},
        "tidegate_control_plane_job_runs_total": {"done", "failed"},
    }  # fmt: skip
    assert described() == code
    assert set(PEER_REFUSALS) | {"implausible_cell"} == code["tidegate_peer_messages_refused_total"]
    assert set(LOAD_REFUSALS) == code["tidegate_load_reports_refused_total"]
