"""`tidegate why` finds what it is asked about, answers in one sentence, and shows no secret."""

import json
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from control_plane.console.pages.verdict import moment, windows_of
from tidegate import why
from tidegate.why import FOUND, NO_ANSWER, NOTHING, explain, run_why

NOW = datetime(2026, 11, 30, 10, 50, tzinfo=UTC)
KEY = "tg_abcdefghijklmnopqrstuvwxyz0123456789"


def denial(at: str, **members: Any) -> dict[str, Any]:
    return {
        "at": at, "region": "us-east", "node": "n1", "request_id": "find-me", "client": "acme", "ip": "203.0.113.9",
        "endpoint": "reports", "limit_name": "hourly", "limit": 100, "used": 100, "cause": "used_up", "cost": 1,
        "reason": "The limit hourly was used up.", "remedy": "Wait.", "revision": 7, "canary": False, "requests": 1,
    } | members  # fmt: skip


class ControlPlane:
    """Answers as one does, and remembers what it was asked."""

    def __init__(self, *items: dict[str, Any], silent: str | None = None, handed_on_after: int = 0) -> None:
        self.asked: list[httpx.URL] = []
        self.handed_on_after = handed_on_after
        """The number of questions about denials until a node has handed them on."""
        self.status = "suspended"
        self.pages = False
        self.blocks = [{"block": "bad-net", "expires_at": None}]
        self._items = items
        self._regions = {"us-east": None, "eu-west": silent}

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url)
        match request.url.path:
            case "/v1/denials":
                if [url.path for url in self.asked].count("/v1/denials") <= self.handed_on_after:
                    return httpx.Response(200, json={"items": [], "regions": self._regions})
                since, until = (request.url.params.get(name, at) for name, at in (("from", "2000"), ("to", "3000")))
                items = [one for one in self._items if since[:19] <= one["at"][:19] < until[:19]]
                return httpx.Response(200, json={"items": items, "regions": self._regions})
            case "/v1/clients/acme":
                return httpx.Response(200, json={"client": "acme"})
            case "/v1/clients/acme/limits":
                return httpx.Response(200, json={"client": "acme", "status": self.status, "blocks": [], "limits": []})
            case "/v1/clients/acme/usage":
                denied = {"limit": "hourly", "endpoint": "reports", "region": "us-east", "denied": 7}
                if self.pages and "cursor" not in request.url.params:
                    return httpx.Response(200, json={"items": [denied | {"denied": 0}] * 3, "next_cursor": "more"})
                return httpx.Response(200, json={"items": [denied], "next_cursor": None})
            case "/v1/blocks":
                return httpx.Response(200, json={"items": self.blocks})
        return httpx.Response(404, json={"detail": "none"})

    def client(self, kind: type[httpx.Client] = httpx.Client) -> httpx.Client:
        return kind(base_url="http://cp", transport=httpx.MockTransport(self.answer))

    def query(self) -> dict[str, str]:
        return dict(next(url for url in self.asked if url.path == "/v1/denials").params)


@pytest.mark.parametrize(
    ("asked", "query"),
    [
        ("acme", {"client": "acme"}),
        ("n1-5e-17", {"request_id": "n1-5e-17"}),
        ("203.0.113.9", {"ip": "203.0.113.9"}),
        ("2001:db8::1", {"ip": "2001:db8::1"}),
        (KEY, {"key": KEY[:8]}),
    ],
)
def test_what_is_asked_is_looked_for_as_what_it_is(asked: str, query: dict[str, str]) -> None:
    plane = ControlPlane(denial("2026-11-30T10:42:00Z"))
    with plane.client() as client:
        found = explain(client, asked, None, NOW)
    assert plane.query() == query
    assert found.sentence == (
        "acme was denied in us-east, 8 min ago (2026-11-30 10:42:00 UTC, revision 7): The limit hourly was used up."
    )
    assert found.remedy == "Wait."
    assert KEY not in str(plane.asked) + repr(found), "a secret goes nowhere"
    expected = "203.0.113.9 is blocked (bad-net)." if query.get("ip") == "203.0.113.9" else None
    assert expected in (None, found.now)


def test_a_time_picks_the_denial_that_is_nearest() -> None:
    plane = ControlPlane(denial("2026-11-30T10:49:00Z"), denial("2026-11-30T10:41:30Z", reason="This one."))
    with plane.client() as client:
        found = explain(client, "acme", moment("10:42", NOW), NOW)
    assert found.sentence.endswith("This one.")
    assert found.now == "acme is suspended: every request is refused with 403."
    query = plane.query()
    assert (query["from"], query["to"]) == ("2026-11-30T10:37:00+00:00", "2026-11-30T10:47:00+00:00")


def test_where_there_is_none_about_then_it_looks_further() -> None:
    with ControlPlane(denial("2026-11-30T10:20:00Z", reason="This one.")).client() as client:
        found = explain(client, "acme", moment("10:42", NOW), NOW)
    assert found.sentence.endswith("This one.")


def test_what_was_denied_lately_is_not_forgotten_once_nothing_is_in_the_way() -> None:
    plane = ControlPlane(denial("2026-11-30T10:49:00Z"))
    plane.status = "active"
    with plane.client() as client:
        found = explain(client, "acme", None, NOW)
    assert found.now is not None
    assert found.now == (
        "Nothing stands in the way of acme now. Limits denied it within the last day, most often hourly at reports in "
        "us-east (7 requests)."
    )


def test_what_was_denied_counts_on_whichever_page_of_usage_it_stands() -> None:
    plane = ControlPlane(denial("2026-11-30T10:42:00Z"))
    plane.status, plane.pages = "active", True
    with plane.client() as client:
        found = explain(client, "acme", None, NOW)
    assert "hourly at reports in us-east (7 requests)" in str(found.now)


def test_a_block_that_has_ended_stands_in_no_addresss_way() -> None:
    plane = ControlPlane()
    plane.blocks = [
        {"block": "was-there", "expires_at": "2026-11-30T10:50:00Z"},
        {"block": "is-there", "expires_at": "2026-11-30T10:50:01Z"},
    ]
    with plane.client() as client:
        assert explain(client, "203.0.113.9", None, NOW).now == "203.0.113.9 is blocked (is-there)."
        plane.blocks.pop()
        assert explain(client, "203.0.113.9", None, NOW).now == "No block holds 203.0.113.9."


def test_where_nothing_is_remembered_it_says_so() -> None:
    with ControlPlane().client() as client:
        found = explain(client, "acme", moment("11:00", NOW), NOW)
    assert found.sentence == "No region remembers a denial of the client acme within 30 min of 2026-11-29 11:00:00 UTC."


def test_a_name_that_no_client_has_is_said_to_be_none() -> None:
    with ControlPlane().client() as client:
        found = explain(client, "acne", None, NOW)
    assert found.sentence == "No region remembers a denial of the request acne."
    assert found.now == "There is no client named acne."


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("10:42", datetime(2026, 11, 30, 10, 42, tzinfo=UTC)),
        ("23:59:58", datetime(2026, 11, 29, 23, 59, 58, tzinfo=UTC)),
        ("2026-11-30T10:42:00+01:00", datetime(2026, 11, 30, 9, 42, tzinfo=UTC)),
    ],
)
def test_times_are_read_as_people_write_them(text: str, at: datetime) -> None:
    assert moment(text, NOW) == at


@pytest.mark.parametrize("text", ["yesterday", "25:00", "10:99", "0001-01-01", "9999-12-31T23:59:00Z"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        moment(text, NOW)


def run(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch, *, at: datetime | None = None, as_json: bool = False
) -> int:
    monkeypatch.setattr(why.httpx, "Client", lambda **_: plane.client())
    return run_why("http://cp", "tga_secret", "acme", at, as_json=as_json)


def test_people_get_a_sentence_and_the_evidence_and_machines_get_json(monkeypatch, capsys) -> None:
    plane = ControlPlane(denial("2026-11-30T10:42:00Z", requests=9, canary=True, endpoint="[x]"), silent="is silent")
    assert run(plane, monkeypatch) == FOUND
    text = capsys.readouterr().out
    for said in (
        "9 times from a client library's memory", "first nodes", "What can be done: Wait.", "eu-west: is silent",
        "find-me", "100 of 100", "[x]",
    ):  # fmt: skip
        assert said in text, said
    assert run(plane, monkeypatch, as_json=True) == FOUND
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["remedy"], told["denials"][0]["request_id"]) == ("client", "Wait.", "find-me")
    assert run(ControlPlane(), monkeypatch) == NOTHING


def test_a_denial_of_a_moment_ago_is_waited_for_and_one_at_a_given_time_is_not(monkeypatch, capsys) -> None:
    plane = ControlPlane(denial("2026-11-30T10:42:00Z"), handed_on_after=2 * len(windows_of(None)))
    assert run(plane, monkeypatch) == FOUND
    plane = ControlPlane(denial("2026-11-30T10:42:00Z"), handed_on_after=len(windows_of(NOW)))
    assert run(plane, monkeypatch, at=NOW) == NOTHING
    assert "No region remembers a denial" in capsys.readouterr().out


def test_what_strangers_called_their_request_steers_no_terminal(monkeypatch, capsys) -> None:
    called = {"request_id": "\x1b[2J\x9b2J\\[red]it", "reason": "At \x1b[2Jreports.", "remedy": "\x1b]0;Wait.\x1b\\"}
    plane = ControlPlane(denial("2026-11-30T10:42:00Z", **called), silent="\x1bc")
    assert run(plane, monkeypatch) == FOUND
    text = capsys.readouterr().out
    assert "\\[red]it" in text
    assert all(letter.isprintable() for letter in text.replace("\n", ""))


def test_where_the_token_is_refused_it_says_so(monkeypatch, capsys) -> None:
    plane = ControlPlane()
    monkeypatch.setattr(plane, "answer", lambda _: httpx.Response(401, json={"detail": "the token is unknown"}))
    assert run(plane, monkeypatch) == NO_ANSWER
    assert "the token was refused (401): the token is unknown" in (said := capsys.readouterr().err)
    assert "no answer" not in said
