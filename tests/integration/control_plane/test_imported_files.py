"""What `tidegate import` writes is taken by a control plane as it stands, and decides what it was."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from testing.control_plane import RunningControlPlane
from tests.integration.control_plane.conftest import ADMIN_TOKEN
from tidegate.cli import app

ENVOY = """
domain: edge
descriptors:
  - { key: remote_address, rate_limit: { unit: second, requests_per_unit: 10 } }
  - key: Tenant
    descriptors:
      - { key: path, value: "/v1/things?x=: #y", rate_limit: { unit: year, requests_per_unit: 0 } }
      - { key: path, shadow_mode: true, rate_limit: { unit: month, requests_per_unit: 4294967295 } }
  - { key: generic_key, value: "yes", rate_limit: { unit: week, requests_per_unit: 3 } }
"""
KONG = """
_format_version: "3.0"
services:
  - name: Users API
    url: http://users.internal
    routes:
      - { name: get user, methods: [GET], paths: ["~/users/(?<id>\\\\d+)$"] }
      - { name: list, paths: [/users] }
    plugins:
      - { name: rate-limiting, config: { second: 5, month: 1000, year: 5000, fault_tolerant: true } }
plugins:
  - { name: rate-limiting, config: { minute: 60, limit_by: ip, fault_tolerant: false, hide_client_headers: true } }
  - { name: rate-limiting-advanced, consumer: "Acme Corp.", config: { limit: [7, 70], window_size: [1, 3600] } }
  - { name: rate-limiting-advanced, config: { limit: [9], window_size: [60], identifier: header, header_name: X-Org } }
consumers: [{ username: "Acme Corp." }, { username: globex }]
"""


async def run(served: RunningControlPlane, *arguments: str | Path) -> Result:
    env = {"TIDEGATE_URL": served.url, "TIDEGATE_ADMIN_TOKEN": ADMIN_TOKEN, "COLUMNS": "160", "TERM": "dumb"}
    return await asyncio.to_thread(CliRunner().invoke, app, [str(item) for item in arguments], env=env)


@pytest.mark.parametrize(("kind", "text"), [("envoy-ratelimit", ENVOY), ("kong", KONG)])
async def test_a_control_plane_takes_the_file(
    served: RunningControlPlane, tmp_path: Path, kind: str, text: str
) -> None:
    source, out = tmp_path / "source.yml", tmp_path / "tidegate.yaml"
    source.write_text(text)
    imported = await run(served, "import", kind, source, "-o", out)
    assert imported.exit_code == 0, imported.output
    wanted = await run(served, "diff", "-f", out)
    assert (wanted.exit_code, "would be:" in wanted.stdout) == (2, True), wanted.output
    applied = await run(served, "apply", "-f", out)
    assert applied.exit_code == 0, applied.output
    again = await run(served, "diff", "-f", out)
    assert (again.exit_code, again.stdout) == (0, "would be: nothing differs\n")
