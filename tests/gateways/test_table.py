"""The table of gateways by behaviour in docs/gateways/README.md says what the suite shows, and nothing else."""

import inspect

from testing.gateway import EXAMPLES
from tests.gateways import test_forged, test_gateways
from tests.gateways.conftest import GATEWAYS

TITLES = {
    "envoy": "Envoy",
    "envoy-ratelimit": "Envoy's rate limit filter",
    "nginx": "nginx",
    "traefik": "Traefik",
    "caddy": "Caddy",
    "haproxy": "HAProxy",
}


def table() -> str:
    """One row a test, one column a gateway."""
    rows = [f"| | {' | '.join(TITLES[name] for name in GATEWAYS)} |", "|---|" + "---|" * len(GATEWAYS)]
    for suite in (test_gateways.TestGateway, test_forged.TestForged):
        for name, test in vars(suite).items():
            if name.startswith("test_"):
                said = [_cell(gateway, name) for gateway in GATEWAYS]
                rows.append(f"| {(inspect.getdoc(test) or '').splitlines()[0]} | {' | '.join(said)} |")
    return "\n".join(rows) + "\n"


def _cell(gateway: str, test: str) -> str:
    server = GATEWAYS[gateway]
    if test == "test_fail_closed":
        return f"yes: {', '.join(map(str, server.closed_statuses))}"
    return server.manners.get(test, "yes")


def test_the_table_is_what_the_suite_shows() -> None:
    page = (EXAMPLES / "README.md").read_text()
    assert table() in page, f"put this into docs/gateways/README.md:\n\n{table()}"


def test_every_gateway_has_a_page() -> None:
    page = (EXAMPLES / "README.md").read_text()
    for name, title in TITLES.items():
        assert f"[{title}]({name}.md)" in page
        told = (EXAMPLES / f"{name}.md").read_text()
        for file in sorted(path for path in (EXAMPLES / name).rglob("*") if path.is_file()):
            if file.name == "ratelimit.yaml":
                continue
            assert f"({file.relative_to(EXAMPLES)})" in told, f"{name}.md does not lead to {file.name}"
