"""How much chance a run has: a seeded share in CI, all of it with a seed of its own in ``make nightly``.

``TIDEGATE_TEST_EFFORT=nightly`` runs the same tests with bigger numbers. ``TIDEGATE_TEST_SEED`` is where a nightly run
begins; it is printed, and given again it repeats the run.
"""

import os

from hypothesis import HealthCheck, settings

NIGHTLY = os.environ.get("TIDEGATE_TEST_EFFORT", "ci") == "nightly"
SEED = int(os.environ.get("TIDEGATE_TEST_SEED", "0"))
"""0 in CI, where the same examples are tried each time."""
EXAMPLES = 50
NIGHTLY_FACTOR = 40


def share(*, ci: int, nightly: int) -> int:
    """The number for this run."""
    return nightly if NIGHTLY else ci


def examples(ci: int) -> int:
    """How many examples hypothesis tries where ``ci`` are tried in CI."""
    return share(ci=ci, nightly=NIGHTLY_FACTOR * ci)


def load_hypothesis_profile() -> None:
    """Let hypothesis try as much as this run may; a failure prints how to repeat it."""
    settings.register_profile(
        "tidegate",
        max_examples=examples(EXAMPLES),
        deadline=None,  # a busy machine takes its time over an example
        derandomize=not NIGHTLY,
        database=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow] if NIGHTLY else [],
    )
    settings.load_profile("tidegate")
