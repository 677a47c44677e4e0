"""How a run in several processes divides its tests: what takes longest first, and together what shares a server."""

from xdist.scheduler.loadscope import LoadScopeScheduling

LONGEST_FIRST = (
    "tests/one_stack/",
    "tests/release/",
    "tests/system/",
    "tests/console/",
    "tests/operate/",
    "tests/gateways/",
    "tests/simulation/",
    "tests/integration/",
    "tests/clients/",
    "tests/charts/",
    "tests/conformance/",
)
"""Then the rest, whose short files fill the end of a run."""
TOGETHER = ("tests/one_stack/", "tests/release/")
"""Folders that start something once, a dozen processes or the artefacts: one process runs them whole."""
APART = (
    "tests/integration/node/test_regions_strict.py",
    "tests/simulation/",
    "tests/system/test_up.py",
)
"""Long tests that share nothing: each goes to whichever process is free."""


class Division(LoadScopeScheduling):
    """Hands out files whole, but for what is named above."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def scope_of(nodeid: str) -> str:
    """Tests of one scope run in one process."""
    together = next((folder for folder in TOGETHER if nodeid.startswith(folder)), None)
    if together is not None:
        return together
    return nodeid if nodeid.startswith(APART) else nodeid.partition("::")[0]


def rank_of(nodeid: str) -> int:
    """Lower begins earlier."""
    return next((at for at, place in enumerate(LONGEST_FIRST) if nodeid.startswith(place)), len(LONGEST_FIRST))
