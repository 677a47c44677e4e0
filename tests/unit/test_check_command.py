"""`tidegate check` says what a node's answer means, and exits by it."""

from typing import Any

import httpx
import pytest

from tidegate import check
from tidegate.check import ALLOWED, DENIED, NO_ANSWER, UNKNOWN_KEY, Answer, ask, show
from tidegate.terminal import errors

LIMIT = {"policy": "hourly", "limit": 5, "window_s": 3600, "remaining": 4, "reset_after_s": 60.0}
PASSED = {"allowed": True, "client": "acme", "plan": "free", "retry_after_s": None, **LIMIT}
STOPPED = {**PASSED, "allowed": False, "retry_after_s": 12.0, "error": "rate_limit_exceeded"}
BLOCKED = {"allowed": False, "status": 403, "error": "blocked", "message": "blocked", "reason_class": "abuse"}


@pytest.mark.parametrize(
    ("status", "body", "question", "code", "said"),
    [
        (200, PASSED, {"api_key": "k", "cost": 1}, ALLOWED, "allowed"),
        (429, {**STOPPED, "message": "it has 1 left, 5 asked."}, {"cost": 5}, DENIED, "1 left, 5 asked"),
        (429, {**STOPPED, "remaining": None, "cause": "cannot_decide"}, {"cost": 1}, DENIED, "unknown"),
        (403, BLOCKED, {"cost": 1}, DENIED, "denied: blocked (abuse)"),
        (401, {"allowed": False, "message": "the API key is unknown"}, {"cost": 1}, DENIED, "the API key is unknown"),
        (200, {**PASSED, "client": None, "plan": "anonymous"}, {"api_key": "typo", "cost": 1}, UNKNOWN_KEY, "not know"),
        (200, PASSED, {"cost": 0}, ALLOWED, "nothing was taken; something is left"),
        (200, {**PASSED, "remaining": 0}, {"cost": 0}, DENIED, "nothing is left"),
        (403, {"detail": "a gateway token is needed"}, {"client": "acme", "cost": 1}, NO_ANSWER, "not decided (403)"),
    ],
    ids=["allowed", "too few", "cannot decide", "blocked", "refused", "unknown key", "peek", "peek at nothing", "odd"],
)
def test_an_answer_is_said_and_has_its_exit_code(
    status: int, body: dict[str, Any], question: dict[str, object], code: int, said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert show(Answer(status, body), question, as_json=False) == code
    assert said in capsys.readouterr().out


def test_a_name_between_colons_is_no_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    show(Answer(200, {**PASSED, "client": "team:fire:1"}), {"cost": 1}, as_json=False)
    show(Answer(None, {"detail": "no answer from a:key:b"}), {"cost": 1}, as_json=False)
    errors().print("There is no client named a:key:b.", markup=False)
    said = capsys.readouterr()
    assert "client team:fire:1," in said.out
    assert "a:key:b" in said.out
    assert said.err == "There is no client named a:key:b.\n"


@pytest.mark.parametrize(
    ("status", "body", "times"),
    [(403, BLOCKED, 1), (403, {"detail": "explain: needs a gateway token"}, 2), (200, PASSED, 1)],
    ids=["decision", "refused to explain", "allowed"],
)
def test_a_decision_is_asked_for_once(
    status: int, body: dict[str, Any], times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(status, json=body)

    kind = httpx.Client
    monkeypatch.setattr(
        check.httpx, "Client", lambda **_: kind(base_url="http://node", transport=httpx.MockTransport(answer))
    )
    assert ask("http://node", {"cost": 1}, token=None) == Answer(status, body)
    assert len(asked) == times
