"""The stack that these tests share."""

from collections.abc import Iterator

import pytest

from testing.stack import Stack, stacks_started


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One `tidegate up` for all of these tests, with regions us-east and eu-west and two nodes in each.

    Each test makes clients and plans of its own and stops nothing.
    """
    with stacks_started(tmp_path_factory) as start:
        yield start(nodes_per_region=2)
