"""A real Prometheus that scrapes a stack once a second and evaluates the rules of the charts."""

import json
import math
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tidegate.stack.child import Child
from tidegate.stack.ports import LOOPBACK, free_ports

ROOT = Path(__file__).parents[2]
RULES = (ROOT / "helm/data-plane/files/rules.yaml", ROOT / "helm/control-plane/files/rules.yaml")


class Prometheus:
    """``targets`` maps a region ("" for the control plane) to host:port addresses."""

    def __init__(self, directory: Path, targets: Mapping[str, Iterable[str]], rate_interval: str = "5m") -> None:
        self._variables = {"$__rate_interval": rate_interval, "$region": ".*"}
        program = shutil.which("prometheus")
        if program is None:
            pytest.skip("prometheus is not installed")
        port = free_ports(1)[0]
        self.url = f"http://{LOOPBACK}:{port}"
        rules = []
        for path in RULES:
            copy = directory / f"{path.parts[-3]}.yaml"
            # what is recorded every 30 s is recorded every second here
            copy.write_text(re.sub(r"interval: \d+s", "interval: 1s", path.read_text()))
            rules.append(str(copy))
        scrapes = [
            {
                "job_name": f"nodes-{region}" if region else "control-plane",
                "static_configs": [{"targets": list(found), "labels": {"region": region} if region else {}}],
            }
            for region, found in targets.items()
        ]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": rules,
            "scrape_configs": scrapes,
        }
        config_file = directory / "prometheus.yml"
        config_file.write_text(json.dumps(config))  # JSON is YAML
        command = [program, f"--config.file={config_file}", f"--storage.tsdb.path={directory / 'tsdb'}"]
        command += [f"--web.listen-address={LOOPBACK}:{port}", "--log.level=warn"]
        self.child = Child("Prometheus", command, log_path=directory / "prometheus.log")
        self._client = httpx.Client(base_url=self.url, timeout=10, trust_env=False)

    def is_ready(self) -> bool:
        """Whether it answers queries."""
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def ask(self, path: str, **params: str | float) -> Any:
        """The data of an answer of its HTTP API; a query that does not parse fails with Prometheus's words."""
        answer = self._client.get(f"/api/v1/{path}", params=params).json()
        assert answer["status"] == "success", f"{params}: {answer.get('error')}"
        return answer["data"]

    def values(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """Series and their values now; NaN (a ratio of nothing) is no value."""
        found = self.ask("query", query=self._filled_in(expr))["result"]
        series = [(one["metric"], float(one["value"][1])) for one in found]
        return [(labels, value) for labels, value in series if not math.isnan(value)]

    def history(self, expr: str, start_s: float, end_s: float, step_s: float) -> list[tuple[dict[str, str], list[Any]]]:
        """Series and their values over time, as pairs of epoch seconds and value."""
        data = self.ask("query_range", query=self._filled_in(expr), start=start_s, end=end_s, step=step_s)
        return [(one["metric"], [(float(at), float(value)) for at, value in one["values"]]) for one in data["result"]]

    def stop(self) -> None:
        """Stop it."""
        self._client.close()
        self.child.stop()

    def _filled_in(self, expr: str) -> str:
        """An expression with Grafana's variables filled in."""
        for name, value in self._variables.items():
            expr = expr.replace(name, value)
        return expr
