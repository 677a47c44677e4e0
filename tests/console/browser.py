"""A real Chromium, driven by Debian's chromium-driver; everything it complains of is kept."""

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
WAIT_S = 15
Read = TypeVar("Read")


def require_chromium() -> tuple[str, str]:
    """The paths of the browser and its driver; skips where they are not installed."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if None in found:
        pytest.skip("needs Debian's chromium and chromium-driver")
    return found


class Browser:
    """One window. ``complaints()`` are messages of the console, CSP reports among them."""

    def __init__(self, driver: webdriver.Chrome, base: str) -> None:
        self.driver = driver
        self.base = base

    def open(self, path: str) -> None:
        """Load a page of the console."""
        self.driver.get(f"{self.base}{path}")

    def log_in(self, token: str) -> None:
        """Paste a token into the form."""
        self.driver.delete_all_cookies()
        self.open("/console/login")
        self.driver.find_element(By.ID, "token").send_keys(token)
        self.click("button.primary")
        self.wait_for("#main")

    def click(self, selector: str) -> None:
        """Click what the selector finds first, also if its part of the page is renewed at this moment."""

        def clicked(_: object) -> bool:
            self.driver.find_element(By.CSS_SELECTOR, selector).click()
            return True

        self._until(clicked, selector)

    def follow(self, words: str) -> None:
        """Go where a link with these words leads, by the keyboard."""
        self.driver.find_element(By.LINK_TEXT, words).send_keys(Keys.ENTER)

    def focus(self, selector: str) -> WebElement:
        """Put the focus where the selector finds something first."""
        found = self.driver.find_element(By.CSS_SELECTOR, selector)
        self.driver.execute_script("arguments[0].focus()", found)
        return found

    def press(self, *keys: str) -> None:
        """Type, wherever the focus is."""
        for text in keys:
            ActionChains(self.driver).send_keys(text).perform()

    @contextmanager
    def without_scripts(self) -> Iterator[None]:
        """Let no script of any page run."""
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        try:
            yield
        finally:
            self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

    def text(self, selector: str = "body") -> str:
        """What is to be read where the selector finds something first."""
        return self.texts(selector)[0]

    def texts(self, selector: str) -> list[str]:
        """What is to be read in each that the selector finds, also if its part of the page is renewed at this moment.

        Waits until there is one at least.
        """
        return self._until(lambda _: [one.text for one in self.find(selector)], selector)

    def find(self, selector: str) -> list[Any]:
        """All that the selector finds."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def wait_for(self, selector: str, *, holding: str = "") -> None:
        """Wait until there is such an element, with this text."""
        self._until(lambda _: any(holding in one.text for one in self.find(selector)), f"{selector} with {holding!r}")

    def _until(self, condition: Callable[[object], Read], what: str) -> Read:
        renewed = [StaleElementReferenceException]
        wait = WebDriverWait(self.driver, WAIT_S, poll_frequency=0.05, ignored_exceptions=renewed)
        return wait.until(condition, what)

    def theme(self, name: str) -> None:
        """Say that the person likes ``light`` or ``dark``."""
        features = [
            {"name": "prefers-color-scheme", "value": name},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def size(self, width: int, height: int = 900) -> None:
        """Make the page so wide, in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def picture(self, path: Path, *, most: int = 2000) -> None:
        """Write a picture (WebP) of the page, from its top as far down as ``most``."""
        width, height = self.driver.execute_script(
            "const e = document.documentElement; return [e.clientWidth, e.scrollHeight]"
        )
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, most), "scale": 1}
        options: dict[str, Any] = {"format": "webp", "quality": 82, "captureBeyondViewport": True, "clip": clip}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", options)
        path.write_bytes(base64.b64decode(shot["data"]))

    def overflow(self) -> int:
        """How many pixels of the page stand out to the right."""
        return self.driver.execute_script(
            "const e = document.documentElement; return Math.max(0, e.scrollWidth - e.clientWidth)"
        )

    def complaints(self) -> list[str]:
        """Errors and warnings since the last time, in the browser's words."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in {"SEVERE", "WARNING"}]

    def requests(self) -> list[str]:
        """Addresses that pages asked for since the last time, answered or not; the browser must watch requests."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def violations(self, *rules: str) -> list[str]:
        """What axe-core finds by these rules, or by all that are on by default; a line each."""
        # by the protocol, not by a <script>: the page's policy lets none in
        self.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": AXE.read_text()})
        result = self.driver.execute_async_script(
            "const [rules, done] = arguments;"
            "const only = rules.length ? {runOnly: rules} : {};"
            "axe.run({resultTypes: ['violations'], ...only}).then(found => done(JSON.stringify(found.violations)))",
            list(rules),
        )
        return [
            f"{one['id']}: {node['target']} {node['any'][0]['message'] if node['any'] else one['help']}"
            for one in json.loads(result)
            for node in one["nodes"]
        ]


@contextmanager
def chromium(base: str, profile: Path, *, watch_requests: bool = False) -> Iterator[Browser]:
    """A browser with an empty profile; it ends with the block."""
    binary, driver_path = require_chromium()
    options = Options()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"} | ({"performance": "ALL"} if watch_requests else {}))
    driver = webdriver.Chrome(options=options, service=Service(driver_path))
    driver.set_script_timeout(30)
    try:
        yield Browser(driver, base)
    finally:
        driver.quit()
