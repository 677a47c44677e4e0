"""`tidegate check`: one decision, asked from the shell and shown as a table."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tidegate.terminal import Fitting, output

TIMEOUT_S = 5.0
ALLOWED, DENIED, NO_ANSWER, UNKNOWN_KEY = 0, 1, 2, 3
"""``UNKNOWN_KEY``: allowed, but as anybody without a key: the node does not know the one that was sent."""


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
            answer = _answer(client.post("/v1/check", json={**question, "explain": True}))
            if answer.status in {400, 403, 422} and "allowed" not in answer.body:
                answer = _answer(client.post("/v1/check", json=question))
    except httpx.HTTPError as error:
        return Answer(None, {"detail": f"no answer from {url}: {error or type(error).__name__}"})
    return answer


def _answer(response: httpx.Response) -> Answer:
    try:
        body = response.json()
    except ValueError:
        body = None
    return Answer(response.status_code, body if isinstance(body, dict) else {"detail": response.text})


def show(answer: Answer, question: Mapping[str, object], *, as_json: bool) -> int:
    """Print the answer to ``question``; returns the exit code."""
    console = output()
    decided = answer.status in {200, 401, 403, 429} and isinstance(answer.body.get("allowed"), bool)
    if as_json:
        console.out(json.dumps(answer.body, indent=2))
    elif decided and answer.status in {401, 403}:
        console.print(f"[red]denied[/]: {escape(_said(answer.body))}", soft_wrap=True)
        console.print("no limit was looked at")
    elif decided:
        _show_decision(console, answer.body, question)
    else:
        problem = answer.body.get("detail") or answer.body.get("title") or json.dumps(dict(answer.body))
        console.print(f"not decided ({answer.status or 'no connection'}): {problem}", markup=False, soft_wrap=True)
    if not decided:
        return NO_ANSWER
    if not answer.body["allowed"] or _peeked_at_nothing(answer.body, question):
        return DENIED
    return UNKNOWN_KEY if _is_of_unknown_key(answer.body, question) else ALLOWED


def _said(body: Mapping[str, Any]) -> str:
    """Why a caller is turned away."""
    reason_class = body.get("reason_class")
    message = str(body.get("message") or body.get("detail") or body.get("error"))
    return message if reason_class is None else f"{message} ({reason_class})"


def _is_of_unknown_key(decision: Mapping[str, Any], question: Mapping[str, object]) -> bool:
    return "api_key" in question and decision.get("client") is None


def _peeked_at_nothing(decision: Mapping[str, Any], question: Mapping[str, object]) -> bool:
    """Whether a look that took nothing found an enforced limit of which nothing is left."""
    return question.get("cost") == 0 and any(
        limit.get("remaining") == 0 and not limit.get("shadow") for limit in _limits(decision)
    )


def _limits(decision: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return decision.get("limits") or ([decision] if decision.get("policy") else [])


def _show_decision(console: Console, decision: Mapping[str, Any], question: Mapping[str, object]) -> None:
    verdict = "[green]allowed[/]" if decision["allowed"] else "[red]denied[/]"
    wait = decision.get("retry_after_s")
    console.print(verdict if wait is None else f"{verdict}, may pass in {wait:.3f} s")
    if not decision["allowed"] and decision.get("message"):
        console.print(decision["message"], markup=False, soft_wrap=True)
    if question.get("cost") == 0:
        left = "of a limit nothing is left" if _peeked_at_nothing(decision, question) else "something is left"
        console.print(f"[yellow]only looked (cost 0): nothing was taken; {left}[/]", soft_wrap=True)
    if _is_of_unknown_key(decision, question):
        console.print("[yellow]the node does not know this key: decided as for anybody without one[/]", soft_wrap=True)
    facts = {name: decision.get(name) for name in ("client", "plan", "region", "revision", "delay_ms", "request_id")}
    known = ", ".join(f"{name} {value}" for name, value in facts.items() if value not in {None, 0})
    console.print(known, markup=False, soft_wrap=True)
    if decision.get("degraded"):
        console.print("[yellow]degraded: the region's store did not take part in this decision[/]")
    limits = _limits(decision)
    if not limits:
        console.print("no limit applies")
        return
    table = Table("limit", "scope", "remaining", "of", "window s", "resets in s", "verdict")
    for limit in limits:
        cells = (
            limit.get("policy"),
            limit.get("scope", ""),
            "unknown" if limit.get("remaining") is None else limit["remaining"],
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
