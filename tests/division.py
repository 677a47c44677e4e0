"""How a run in several processes divides its tests: what takes longest first, and together what shares a server."""

from xdist.scheduler.loadscope import LoadScopeScheduling

LONGEST_FIRST = (
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
ONE_STACK = (
    "tests/system/test_api_pages.py",
    "tests/system/test_bad_input.py",
    "tests/system/test_check_command.py",
    "tests/system/test_decisions.py",
    "tests/system/test_strict.py",
    "tests/system/test_up.py::test_no_secret_is_on_a_command_line",
    "tests/system/test_up.py::test_prints_one_ready_line_and_says_that_the_network_is_trusted",
    "tests/system/test_usage.py",
)
"""What takes the `stack` of the folder, a dozen processes: it is started once."""
ONE_STACK_OF_GATEWAYS = (
    "tests/gateways/test_envoy.py",
    "tests/gateways/test_overload.py",
    "tests/gateways/test_report.py",
)
ONE_RELEASE = ("tests/release/",)
"""What takes the session's artefacts, which are built and installed once."""
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
    if nodeid.startswith(ONE_STACK):
        return "one stack"
    if nodeid.startswith(ONE_STACK_OF_GATEWAYS):
        return "one stack of gateways"
    if nodeid.startswith(ONE_RELEASE):
        return "one release"
    return nodeid if nodeid.startswith(APART) else nodeid.partition("::")[0]


def rank_of(nodeid: str) -> int:
    """Lower begins earlier."""
    if nodeid.startswith(ONE_STACK):
        return -1
    return next((at for at, place in enumerate(LONGEST_FIRST) if nodeid.startswith(place)), len(LONGEST_FIRST))
