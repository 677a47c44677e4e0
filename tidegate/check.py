"""`tidegate check`: one decision, asked from the shell and shown as a table."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from tidegate.terminal import Fitting, output

TIMEOUT_S = 5.0
ALLOWED, DENIED, NO_ANSWER = 0, 1, 2


@dataclass(frozen=True)
class Answer:
    """What a node said; ``status`` is ``None`` when it could not be reached, and ``body`` holds the reason."""

    status: int | None
    body: Mapping[str, Any]


def ask(url: str, question: Mapping[str, object], *, token: str | None) -> Answer:
    """Send one check to the node at ``url``. ``token`` is a gateway's, for nodes that want one.

    Every limit is asked for (``explain``) only with a token or where the node trusts its network; a node that refuses
    to explain is asked again without.
    """
    headers = {"X-Tidegate-Token": token} if token else {}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False) as client:
            response = client.post("/v1/check", json={**question, "explain": True})
            if response.status_code in {400, 403, 422}:
                response = client.post("/v1/check", json=question)
    except httpx.HTTPError as error:
        return Answer(None, {"detail": f"no answer from {url}: {error or type(error).__name__}"})
    try:
        body = response.json()
    except ValueError:
        body = None
    return Answer(response.status_code, body if isinstance(body, dict) else {"detail": response.text})


def show(answer: Answer, *, as_json: bool) -> int:
    """Print the answer; returns the exit code."""
    console = output()
    decided = answer.status in {200, 429} and "allowed" in answer.body
    if as_json:
        console.out(json.dumps(answer.body, indent=2))
    elif decided:
        _show_decision(console, answer.body)
    else:
        problem = answer.body.get("detail") or answer.body.get("title") or json.dumps(dict(answer.body))
        console.print(f"not decided ({answer.status or 'no connection'}): {problem}", markup=False, soft_wrap=True)
    if not decided:
        return NO_ANSWER
    return ALLOWED if answer.body["allowed"] else DENIED


def _show_decision(console: Console, decision: Mapping[str, Any]) -> None:
    verdict = "[green]allowed[/]" if decision["allowed"] else "[red]denied[/]"
    wait = decision.get("retry_after_s")
    console.print(verdict if wait is None else f"{verdict}, may pass in {wait:.3f} s")
    facts = {name: decision.get(name) for name in ("client", "plan", "region", "revision", "delay_ms", "request_id")}
    known = ", ".join(f"{name} {value}" for name, value in facts.items() if value not in {None, 0})
    console.print(known, markup=False, soft_wrap=True)
    if decision.get("degraded"):
        console.print("[yellow]degraded: the region's store did not take part in this decision[/]")
    limits = decision.get("limits") or ([decision] if decision.get("policy") else [])
    if not limits:
        console.print("no limit applies")
        return
    table = Table("limit", "scope", "remaining", "of", "window s", "resets in s", "verdict")
    for limit in limits:
        cells = (
            limit.get("policy"),
            limit.get("scope", ""),
            limit.get("remaining"),
            limit.get("limit"),
            f"{limit.get('window_s', 0):g}",
            f"{limit.get('reset_after_s', 0):.1f}",
            _verdict(limit),
        )
        table.add_row(*(str(cell) for cell in cells))
    console.print(Fitting(table))


def _verdict(limit: Mapping[str, Any]) -> str:
    if limit.get("allowed"):
        return "allows"
    return "would deny (shadow)" if limit.get("shadow") else "denies"
