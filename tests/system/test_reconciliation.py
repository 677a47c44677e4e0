"""Usage is what clients saw, whatever is killed; ``python -m tests.system.reconciliation`` is the long run."""

from pathlib import Path

import pytest

from tests.system.reconciliation import check, world

pytestmark = pytest.mark.timeout(240)


def test_usage_in_postgres_is_what_clients_saw_though_parts_are_killed(tmp_path: Path) -> None:
    with world(tmp_path, ("solo",), nodes_per_region=2) as made:
        row = made.scenario(("node solo-1", "control plane", "Postgres"), seconds=3.0, down_s=0.3)
    assert row.allowed
    assert row.denied
    check(row)
