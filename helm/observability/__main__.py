"""``python -m helm.observability``: write the dashboards; ``--check``: exit with 1 where what is written differs."""

import argparse
import json
import sys
from pathlib import Path

from helm.observability.adaptive import ADAPTIVE
from helm.observability.clients import CLIENTS
from helm.observability.control_plane import CONTROL_PLANE
from helm.observability.overview import OVERVIEW
from helm.observability.regions import REGIONS

DASHBOARDS = (OVERVIEW, REGIONS, CONTROL_PLANE, ADAPTIVE, CLIENTS)
TARGET = Path(__file__).parents[1] / "control-plane" / "files" / "dashboards"


def files() -> dict[Path, str]:
    """Every file and what must be in it."""
    return {
        TARGET / f"{dashboard.uid}.json": json.dumps(dashboard.render(), indent=1) + "\n" for dashboard in DASHBOARDS
    }


def differing() -> list[Path]:
    """Files that are missing, stale, or made by nobody."""
    wanted = files()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    return stale + [path for path in TARGET.glob("*.json") if path not in wanted]


def main() -> int:
    """Write, or check."""
    arguments = argparse.ArgumentParser(prog="python -m helm.observability", description=__doc__)
    arguments.add_argument("--check", action="store_true", help="write nothing; say what differs")
    if arguments.parse_args().check:
        stale = differing()
        for path in stale:
            print(f"{path} differs: run python -m helm.observability", file=sys.stderr)  # noqa: T201
        return 1 if stale else 0
    TARGET.mkdir(parents=True, exist_ok=True)
    for path in TARGET.glob("*.json"):
        path.unlink()
    for path, text in files().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
