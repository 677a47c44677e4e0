"""`/docs` of both planes in a real Chromium: the operations are there, and nothing is asked of anybody else."""

from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from testing.stack import Stack
from tests.console.browser import chromium, require_chromium


@pytest.mark.parametrize("plane", ["control plane", "node"])
def test_the_page_shows_every_operation_and_asks_this_process_alone(stack: Stack, plane: str, tmp_path: Path) -> None:
    require_chromium()
    base = str(stack.admin.base_url) if plane == "control plane" else stack.node("us-east").url
    described = httpx.get(f"{base}/openapi.json", trust_env=False, timeout=60).json()["paths"]
    operations = {(path, method) for path, methods in described.items() for method in methods if method != "parameters"}
    with chromium(base, tmp_path, watch_requests=True) as browser:
        browser.open("/docs")
        browser.wait_for(".opblock-summary")
        shown = browser.driver.execute_script(
            "return [...document.querySelectorAll('.opblock')].map(one => ["
            "one.querySelector('.opblock-summary-path').dataset.path,"
            "one.querySelector('.opblock-summary-method').innerText.toLowerCase()])"
        )
        assert {(path, method) for path, method in shown} == operations
        asked = [url for url in browser.requests() if not url.startswith(("data:", "chrome:", "chrome-untrusted:"))]
        assert {urlsplit(url).netloc for url in asked} == {urlsplit(base).netloc}
        assert f"{base}/openapi.json" in asked
        assert browser.complaints() == []
