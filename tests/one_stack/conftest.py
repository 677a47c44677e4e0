"""The stack that these tests share."""

from collections.abc import Iterator

import pytest

from testing.stack import Stack, stacks_started


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Regions us-east and eu-west, with two nodes in each."""
    with stacks_started(tmp_path_factory) as start:
        yield start(nodes_per_region=2, patient=True)
