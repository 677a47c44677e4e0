"""Commands of the documentation, typed while a demo runs; what a page shows below them is what they print."""

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from testing.gateway import debian_program
from testing.pages import NOT_HERE, ROOT, blocks, pages
from testing.stack import Stack, StartStack, left_behind
from testing.terminal import Terminal

pytestmark = pytest.mark.timeout(300)
READ_ELSEWHERE = dict.fromkeys(("docs/migrate.md", "docs/recipes.md"), "tests/system/test_pages_from_scratch.py")
LANGUAGES = {"sh", "text", "yaml", "json", "toml", "python", "js"}
NO_DENIAL = "|| test $? = 1"
ALLOWED = (r"HTTP/1\.[01] 200 OK", r"(?i)x-ratelimit-limit: 1000", r"(?i)x-ratelimit-remaining: 9\d\d")
GATEWAYS = "docs/gateways/"


@dataclass(frozen=True)
class Reading:
    """How a page is read: what its commands print, in this order, and what else they need."""

    prints: tuple[str, ...] = ()
    change: Mapping[str, str] = field(default_factory=dict)
    """What a reader types in its place."""
    files: Mapping[str, str] = field(default_factory=dict)
    """What a reader has beside."""
    shows: tuple[str, ...] | None = None
    """What the page shows is what its commands print, but for these figures."""
    after: str | None = None
    """A page that is read before, at the same terminal."""
    program: str | None = None
    """Of Debian; the page is skipped where it is missing."""


READINGS = {
    "README.md": Reading(change={"203.0.113.42": "203.0.113.77"}, shows=(r"\d{10}", r"t=\d+")),
    "docs/start.md": Reading(
        prints=(
            r"HTTP/1.1 200 OK",
            r"HTTP/1.1 429",
            r"initech was denied",
            r"overrides set initech hourly",
            r"allowed",
        ),
        shows=(r"\d{3,4}(?=$)",),
    ),
    "docs/command-line.md": Reading(
        change={"trial": "daily", "initech": "umbrella"}, shows=(r"\d+\.\d", r"(?<=revision )\d+")
    ),
    "docs/config-file.md": Reading(prints=(r"nothing differs", r"revision")),
    "docs/adaptive.md": Reading(prints=(r'"taken": ?1',)),
    "docs/usage.md": Reading(prints=(r"complete_until", r"hour,plan,limit,allowed,")),
    "docs/backup.md": Reading(
        change={"createdb tidegate": "createdb restored", '--dbname="$DATABASE_URL" ': "--dbname=restored "}
    ),
    "docs/oidc.md": Reading(change={'"$JWT"': "tga_..."}, prints=(r"secret: +tga_", r"acme-1")),
    "docs/regions.md": Reading(
        change={"--runs 100 ": "--runs 1 ", "--runs 10000": "--runs 1"}, prints=(r"three-way-cut", r"strict")
    ),
    "docs/runbooks/a-customer-says.md": Reading(
        change={
            f"{command} ": f"{command} {NO_DENIAL} "
            for command in ("n1-5e2f9c1a-17", "10:42", "tg_abcde", "203.0.113.9")
        }
    ),
    f"{GATEWAYS}envoy.md": Reading(prints=ALLOWED, shows=(r"999", r"t=\d+")),
    f"{GATEWAYS}README.md": Reading(
        prints=(r"(?s)^ +60 200\n +5 429$", r'"secret": ?"tgg_'), after=f"{GATEWAYS}envoy.md"
    ),
    f"{GATEWAYS}envoy-ratelimit.md": Reading(prints=ALLOWED),
    f"{GATEWAYS}nginx.md": Reading(prints=ALLOWED, program="nginx"),
    f"{GATEWAYS}traefik.md": Reading(prints=ALLOWED),
    f"{GATEWAYS}caddy.md": Reading(prints=ALLOWED),
    f"{GATEWAYS}haproxy.md": Reading(prints=ALLOWED, program="haproxy"),
    "docs/install-kubernetes.md": Reading(
        change={
            "$API": "$TIDEGATE_URL",
            "us-east eu-west": "us-page eu-page",
            "tidegate": "of_page",
            "cat admin-token": "cat .tidegate-token",
        },
        prints=(r"CREATE DATABASE", r'"credential":', r'"credential":'),
    ),
}


@pytest.fixture(scope="module")
def demo(start_module_stack: StartStack) -> Stack:
    return start_module_stack(demo=True, rls=True, patient=True)


@pytest.fixture
def terminal(demo: Stack, tmp_path: Path) -> Iterator[Terminal]:
    demo.wait_for_peers()  # a busy machine may hold an agent up for 2 s: then half of what a page shows is kept
    with closing(Terminal(demo, tmp_path / "clone")) as opened:
        yield opened


def test_the_file_of_the_page_can_be_applied(demo: Stack, terminal: Terminal) -> None:
    """A file removes the plans that it does not name, so what there was is put back. It comes first."""
    terminal.type("tidegate export -o before.yaml\n")
    page, *_ = blocks("docs/config-file.md", "yaml")
    terminal.write("page.yaml", page.text)
    assert "revision" in terminal.type("tidegate apply -f page.yaml\n")
    try:
        assert demo.admin.get("/v1/plans/pro/limits/monthly").json()["limit"] == 5_000_000
    finally:
        terminal.type("tidegate apply -f before.yaml\n")


@pytest.mark.parametrize("page", READINGS)
def test_the_commands_of_a_page_do_what_it_says(page: str, terminal: Terminal) -> None:
    reading = READINGS[page]
    if reading.program is not None:
        debian_program(reading.program)
    for name, text in reading.files.items():
        terminal.write(name, text)
    if reading.after is not None:
        terminal.read(reading.after)
    printed = "".join(output for _, output in terminal.read(page, reading.change))
    at = 0
    for pattern in reading.prints:
        found = re.compile(pattern, re.MULTILINE).search(printed, at)
        assert found is not None, f"not printed: {pattern}\n{printed}"
        at = found.end()
    if reading.shows is not None:
        for block in blocks(page, "text"):
            for line in block.text.splitlines():
                assert re.search(as_pattern(line, reading.shows), printed, re.MULTILINE), (
                    f"not printed: {line}\n{printed}"
                )


def as_pattern(shown: str, figures: tuple[str, ...]) -> str:
    """A line of a page, in which these figures may be others, and ``...`` anything."""
    differs = re.compile("|".join((r"\.\.\.", *figures)))
    parts, at = [], 0
    for found in differs.finditer(shown):
        differs_as = ".*" if found[0] == "..." else re.sub(r"\d+", r"\\d+", re.escape(found[0]))
        parts += [re.escape(shown[at : found.start()]), differs_as]
        at = found.end()
    return "^" + "".join(parts) + re.escape(shown[at:])


def test_a_terminal_fails_with_a_command_that_fails(terminal: Terminal) -> None:
    assert terminal.type("echo one &&\n  echo two\n") == "one\ntwo\n"
    with pytest.raises(AssertionError, match="no-such-command"):
        terminal.type("no-such-command\n")


def test_what_a_terminal_started_ends_with_it(demo: Stack, tmp_path: Path) -> None:
    terminal = Terminal(demo, tmp_path / "clone")
    terminal.write("tmp/asleep", "import os, time\nos.setsid()\ntime.sleep(600)\n")
    terminal.type("python3 /tmp/asleep &\npython3 -m http.server 9000 --bind 127.0.0.1 &\n")
    terminal.close()
    assert left_behind(tmp_path) == []


def test_every_command_of_every_page_is_typed_or_cannot_be_here() -> None:
    runnable = {page for page in pages() for block in blocks(page, "sh") if block.why_not_here is None}
    assert runnable == READINGS.keys() | READ_ELSEWHERE.keys()
    for page, module in READ_ELSEWHERE.items():
        assert f'"{page}"' in (ROOT / module).read_text("utf-8")
    listed = {
        (block.page, head) for (page, head) in NOT_HERE for block in blocks(page, "sh") if block.text.startswith(head)
    }
    assert listed == NOT_HERE.keys()


def test_every_block_says_what_it_is() -> None:
    assert [block for page in pages() for block in blocks(page) if block.language not in LANGUAGES] == []
