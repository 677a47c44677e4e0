"""The console in a real Chromium, on one real stack: every page, every role, each emergency action to the node."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from selenium.webdriver.common.keys import Keys

from testing.stack import Stack, StartStack, wait_for
from tests.console.browser import Browser, chromium, require_chromium
from tests.console.scene import Scene
from tidegate.stack.ports import LOOPBACK

PAGES = {
    "now": "/console/",
    "why": "/console/why?q=acme",
    "clients": "/console/clients",
    "client": "/console/client/globex",
    "plans": "/console/plans",
    "plan": "/console/plan/pro",
    "regions": "/console/regions",
    "backends": "/console/backends",
    "changes": "/console/changes",
    "revision": "/console/revision/3",
    "developer": "/console/developer",
    "reference": "/console/developer/api",
    "access": "/console/access",
    "shadow": "/console/do/shadow?look=1",
    "override": "/console/do/override?client=acme&name=hourly&limit=2000&look=1",
}
ACTIONS = {"shadow", "override"}
CONTRAST = ("color-contrast", "link-in-text-block")
"""What dark can break."""
NARROW = ("scrollable-region-focusable", "target-size")
"""What a narrow window can break."""
MANY = 10_000
MOST_TIMES_AS_MUCH = 3
TRIES = 5


@pytest.fixture(scope="module")
def stack(start_module_stack: StartStack) -> Stack:
    require_chromium()
    return start_module_stack(nodes_per_region=1)


@pytest.fixture(scope="module")
def scene(stack: Stack) -> Scene:
    scene = Scene(stack.admin, stack.nodes)
    scene.make()
    scene.busy(1.0)
    return scene


@pytest.fixture(scope="module")
def browser(stack: Stack, scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    profile: Path = tmp_path_factory.mktemp("chromium")
    with chromium(str(stack.admin.base_url), profile) as browser:
        yield browser


def confirm(browser: Browser, path: str) -> float:
    """Look at what will change, confirm, and return in how many milliseconds every node enforced it."""
    browser.open(path)
    assert browser.text(".confirm .diff") != ""
    browser.click("#confirm")
    browser.wait_for("#enforced", holding="Every connected node enforced it within")
    return float(re.search(r"([\d.]+) ms", browser.text("#enforced"))[1])


def test_the_link_that_up_prints_logs_in_once(stack: Stack, browser: Browser):
    path = re.search(r"^console: \S+(/console/link/\S+)", stack.output(), re.MULTILINE)[1]
    browser.open(path)
    browser.wait_for(".who", holding="admin")
    browser.driver.delete_all_cookies()
    browser.open(path)
    browser.wait_for(".error", holding="used already")
    assert [line for line in browser.complaints() if "401" not in line] == []


@pytest.mark.parametrize(
    ("role", "theme", "width", "rules"),
    [("admin", "light", 1280, ()), ("operator", "dark", 1280, CONTRAST), ("viewer", "light", 390, NARROW)],
)
def test_every_page_for_every_role(
    browser: Browser, scene: Scene, role: str, theme: str, width: int, rules: tuple[str, ...]
):
    browser.theme(theme)
    browser.size(width)
    browser.log_in(scene.tokens[role])
    for name, path in PAGES.items():
        if role == "viewer" and name in ACTIONS:
            continue
        browser.open(path)
        browser.wait_for("#main")
        assert browser.violations(*rules) == [], name
        assert browser.overflow() == 0, name
        assert (browser.find("a[href^='/console/do/']") == []) or role != "viewer", name
        assert browser.complaints() == [], name
    browser.theme("light")
    browser.size(1280)


def test_a_change_is_shown_without_a_reload(browser: Browser, scene: Scene, stack: Stack):
    browser.size(1280)
    browser.log_in(scene.tokens["viewer"])
    browser.wait_for("#live[data-on]")
    stack.put("/v1/clients/acme", {"plan": "free", "external_id": "seen-live"})
    revision = stack.admin.get("/v1/revisions").json()["items"][0]["revision"]
    browser.wait_for("#now-status", holding=f"all at revision {revision}")
    assert browser.complaints() == []


def test_regions_say_what_they_know_of_each_other(browser: Browser, scene: Scene):
    browser.log_in(scene.tokens["viewer"])
    browser.open("/console/regions")
    for region, other in (("us-east", "eu-west"), ("eu-west", "us-east")):
        browser.wait_for("#exchange tr", holding=f"{region} {region}-agent served")
        (row,) = [row for row in browser.texts("#exchange tbody tr") if row.startswith(region)]
        assert re.search(rf"{other} \d+ (ms|s) ", row), row
    assert browser.complaints() == []


def test_shadow_for_all_and_back(browser: Browser, scene: Scene, stack: Stack):
    key, node = stack.client_with_limit("spent", 1), stack.nodes[1]
    assert [scene.ask(node, api_key=key).status_code for _ in range(2)] == [200, 429]
    browser.log_in(scene.tokens["operator"])
    took_ms = confirm(browser, "/console/do/shadow?look=1")
    assert 0 < took_ms < 10_000
    assert scene.ask(node, api_key=key).status_code == 200
    browser.open("/console/")
    browser.wait_for("#now-status", holding="All limits are set to shadow by hand.")
    confirm(browser, "/console/do/enforce?target=*")
    assert scene.ask(node, api_key=key).status_code == 429
    assert browser.complaints() == []


def test_a_block_and_its_end(browser: Browser, scene: Scene, stack: Stack):
    node = stack.nodes[1]
    browser.log_in(scene.tokens["operator"])
    browser.open("/console/client/umbrella")
    browser.click(".title a.danger")
    browser.click("#confirm")
    browser.wait_for("#enforced", holding="enforced it within")
    answer = scene.ask(node, api_key=scene.keys["umbrella"])
    assert (answer.status_code, answer.json()["error"]) == (403, "blocked")
    browser.open("/console/why?q=umbrella")
    browser.wait_for(".banner.bad", holding="umbrella is blocked")
    browser.click(".acts a[href*='unblock']")
    browser.click("#confirm")
    browser.wait_for("#enforced", holding="enforced it within")
    assert scene.ask(node, api_key=scene.keys["umbrella"]).status_code == 200
    assert browser.complaints() == []


def test_a_customer_who_was_denied_is_helped_in_four_steps_with_the_keyboard(
    browser: Browser, scene: Scene, stack: Stack
):
    key, node = stack.client_with_limit("wronged", 1), stack.nodes[0]
    assert scene.ask(node, api_key=key).status_code == 200
    denied = scene.ask(node, api_key=key)
    assert denied.status_code == 429
    browser.log_in(scene.tokens["operator"])
    wait_for(lambda: stack.admin.get("/v1/denials", params={"client": "wronged"}).json()["items"] != [], 15, "the ring")
    # 1: ask
    browser.press("/", denied.json()["request_id"], Keys.ENTER)
    browser.wait_for(".answer", holding="wronged was denied in us-east")
    assert "1 of 1 were used, 1 asked" in browser.text(".answer")
    # 2: what can be done; 3: how; 4: yes
    browser.follow("Override hourly")
    browser.driver.find_element("id", "limit").clear()
    browser.driver.find_element("id", "limit").send_keys("50", Keys.ENTER)
    browser.wait_for(".confirm .diff", holding="50")
    browser.focus("#confirm").send_keys(Keys.ENTER)
    browser.wait_for("#enforced", holding="enforced it within")
    assert scene.ask(node, api_key=key).status_code == 200
    assert browser.complaints() == []


def test_the_keyboard_reaches_the_page_past_its_navigation(browser: Browser, scene: Scene):
    browser.log_in(scene.tokens["viewer"])
    browser.press(Keys.TAB)
    assert browser.driver.switch_to.active_element.text == "Skip to the page"
    browser.press(Keys.ENTER)
    assert browser.driver.switch_to.active_element.get_attribute("id") == "main"


def test_without_javascript_pages_read_and_actions_work(browser: Browser, scene: Scene, stack: Stack):
    with browser.without_scripts():
        browser.log_in(scene.tokens["operator"])
        for name, path in PAGES.items():
            browser.open(path)
            assert browser.text("#main h1") != "", name
            assert browser.find(".plot canvas") == [], "no script ran"
        browser.open("/console/client/globex")
        browser.click("#table-usage summary")
        assert "allowed" in browser.text("#table-usage table"), "the chart's figures are there"
        assert confirm(browser, "/console/do/override?client=hooli&name=hourly&limit=3000&minutes=60&look=1") > 0
    found = stack.admin.get("/v1/clients/hooli/overrides/hourly").json()
    assert found["limit"] == 3000
    assert browser.complaints() == []


def test_a_factor_by_hand_and_its_end(browser: Browser, scene: Scene, stack: Stack):
    def factor() -> float:
        status = httpx.get(f"{stack.nodes[1].url}/v1/status", trust_env=False).json()
        return next(one["factor"] for one in status["adaptive"]["backends"] if one["backend"] == "users")

    browser.log_in(scene.tokens["operator"])
    confirm(browser, "/console/do/factor?backend=users&factor=0.25&minutes=15&look=1")
    wait_for(lambda: factor() == 0.25, 10, "the node to go by the factor")
    browser.open("/console/backends")
    browser.wait_for(".banner.warn", holding="Held at 0.25 by hand")
    confirm(browser, "/console/do/unfactor?backend=users")
    assert browser.complaints() == []


def test_a_rollback(browser: Browser, scene: Scene, stack: Stack):
    key, node = stack.client_with_limit("mistaken", 5), stack.nodes[1]
    before = stack.admin.get("/v1/revisions").json()["items"][0]["revision"]
    stack.put("/v1/plans/plan-mistaken/limits/hourly", {"limit": 0, "window_s": 3600})
    assert scene.ask(node, api_key=key, path="/").json()["policy"] == "hourly"
    browser.log_in(scene.tokens["operator"])
    browser.open(f"/console/revision/{before + 1}")
    browser.click(".title a.danger")
    assert "plan-mistaken" in browser.text(".confirm .diff")
    browser.click("#confirm")
    browser.wait_for("#enforced", holding="enforced it within")
    answer = scene.ask(node, api_key=key, path="/")
    assert answer.status_code == 200, answer.text
    assert browser.complaints() == []


def test_a_limit_goes_by_steps_and_is_released(browser: Browser, scene: Scene, stack: Stack):
    canary = {"mode": "canary", "node_pause_s": 600, "region_pause_s": 600}
    stack.admin.put("/v1/rollouts/policy", json=canary).raise_for_status()
    browser.log_in(scene.tokens["operator"])
    browser.open("/console/do/limit?plan=free&name=hourly&limit=1500&window_s=3600&way=policy&look=1")
    browser.click("#confirm")
    browser.wait_for(".banner.warn", holding="It goes out by steps")
    browser.open("/console/plan/free")
    browser.wait_for(".steps .here", holding="one node")
    browser.click(".rollout a[href*='release']")
    browser.click("#confirm")
    browser.wait_for("#enforced", holding="enforced it within")
    stack.admin.put("/v1/rollouts/policy", json={"mode": "immediate"}).raise_for_status()
    assert stack.admin.get("/v1/plans/free/limits/hourly").json()["limit"] == 1500
    assert browser.complaints() == []


def test_a_call_can_be_tried_and_takes_nothing(browser: Browser, scene: Scene, stack: Stack):
    left = stack.remaining(stack.nodes[0], scene.keys["wonka"])
    browser.log_in(scene.tokens["viewer"])
    browser.open("/console/developer")
    browser.driver.find_element("id", "client").send_keys("wonka")
    browser.click("main button.primary")
    browser.wait_for("table.limits", holding=f"{left:,} of")
    line = shlex.split(browser.text("main pre").removesuffix("copy"))
    answer = httpx.post(line[2].replace("$NODE", stack.nodes[0].url), content=line[4], trust_env=False)
    assert answer.status_code == 200, answer.text
    assert answer.json()["allowed"]
    assert stack.remaining(stack.nodes[0], scene.keys["wonka"]) == left
    assert browser.complaints() == []


def test_no_page_costs_much_more_with_many_clients(scene: Scene, stack: Stack):
    base = str(stack.admin.base_url)
    pages = {**PAGES, "prefix": "/console/clients?prefix=many-99"}
    with httpx.Client(base_url=base, trust_env=False, timeout=20, headers={"Sec-Fetch-Site": "same-origin"}) as client:
        client.post("/console/login", data={"token": scene.tokens["operator"]}).raise_for_status()
        few = {name: _cpu_ms(stack, client, path) for name, path in pages.items()}
        lines = "\n".join(json.dumps({"client": f"many-{n}", "plan": "free"}) for n in range(MANY))
        imported = stack.admin.post(
            "/v1/clients/import", content=lines, headers={"Content-Type": "application/x-ndjson"}, timeout=60
        )
        assert imported.is_success, imported.text
        assert imported.json()["made"] == MANY, imported.text
        many = {name: _cpu_ms(stack, client, path) for name, path in pages.items()}
        many["one"] = _cpu_ms(stack, client, f"/console/client/{quote('many-777')}")
    most = max(few.values())
    assert most > 0
    assert {name: ms for name, ms in many.items() if ms > MOST_TIMES_AS_MUCH * most} == {}


def _cpu_ms(stack: Stack, client: httpx.Client, path: str) -> float:
    """CPU of the control plane and of Postgres for a page: the least of a few, as they have other work too."""
    assert client.get(path).status_code == 200, path
    backends = [process for process in stack.processes() if f" tidegate {LOOPBACK}(" in " ".join(process.cmdline())]
    working = [stack.part("control-plane"), *backends]
    assert len(working) > 1

    def spent_s() -> float:
        return sum(times.user + times.system for times in (process.cpu_times() for process in working))

    least = float("inf")
    for _ in range(TRIES):
        before = spent_s()
        answer = client.get(path)
        least = min(least, 1000 * (spent_s() - before))
        assert answer.status_code == 200, (path, answer.text)
    return least
