"""The same tests run with bigger numbers at night, by one setting."""

import os
import subprocess
import sys

import pytest

SHOWN = (
    "from testing import effort; effort.load_hypothesis_profile(); from hypothesis import settings; "
    "one = settings(max_examples=effort.examples(200)); "
    "print(effort.share(ci=3, nightly=9), settings().max_examples, one.max_examples, settings().derandomize, "
    "effort.SEED)"
)


@pytest.mark.parametrize(
    ("environment", "shown"),
    [
        ({}, "3 50 200 True 0"),
        ({"TIDEGATE_TEST_EFFORT": "nightly", "TIDEGATE_TEST_SEED": "77"}, "9 2000 8000 False 77"),
    ],
)
def test_one_setting_makes_every_number_larger(environment: dict[str, str], shown: str):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_TEST_")}
    command = [sys.executable, "-c", SHOWN]
    done = subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == shown
