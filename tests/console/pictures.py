"""Takes the pictures of every page in ``docs/pictures/``, of a stack with a minute of traffic.

``.venv/bin/python -m tests.console.pictures``
"""

import tempfile
import time
from pathlib import Path

from testing.stack import Stack, stack_options
from tests.console.browser import Browser, chromium
from tests.console.scene import Scene

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
PAGES = {
    "now": "/console/",
    "why": "/console/why?q=acme",
    "client": "/console/client/globex",
    "clients": "/console/clients",
    "plans": "/console/plans",
    "plan": "/console/plan/pro",
    "regions": "/console/regions",
    "backends": "/console/backends",
    "changes": "/console/changes",
    "revision": "/console/revision/40",
    "developer": "/console/developer?client=wonka",
    "access": "/console/access",
    "confirm": "/console/do/shadow?look=1",
    "login": "/console/login",
}
WIDTHS = {"": 1280, "-narrow": 390}
THEMES = ("light", "dark")
LOADS = (0.4, 0.5, 1.4, 0.9, 0.6, 0.5)
"""How loaded the backend is, a part of the traffic each: it is cut once and recovers."""
PART_S = 12.0
SETTLED_S = 0.4


def take(browser: Browser, directory: Path) -> None:
    """Every page, in each width and theme."""
    for theme in THEMES:
        browser.theme(theme)
        for suffix, width in WIDTHS.items():
            browser.size(width)
            for name, path in PAGES.items():
                browser.open(path)
                if name == "plan":
                    browser.driver.execute_script("document.getElementById('limit').value = '400'")
                    browser.click("form[action$='what-if'] button")
                    browser.wait_for(".banner", holding="would have been denied")
                time.sleep(SETTLED_S)  # what is drawn moves for a moment
                browser.picture(directory / f"console-{name}-{theme}{suffix}.webp")


def main() -> None:
    """Start a stack, let it be busy while somebody looks at it, take the pictures, stop it."""
    with tempfile.TemporaryDirectory() as name:
        stack = Stack(Path(name), stack_options(nodes_per_region=2), keep=False)
        try:
            stack.start()
            scene = Scene(stack.admin, stack.nodes)
            scene.make()
            with chromium(str(stack.admin.base_url), Path(name) / "profile") as browser:
                browser.log_in(scene.tokens["admin"])
                browser.open(PAGES["backends"])  # an open tab: from now on factors are read
                for load in LOADS:
                    scene.busy(PART_S, load=load)
                scene.change_by_steps()
                take(browser, PICTURES)
        finally:
            stack.stop()


if __name__ == "__main__":
    main()
