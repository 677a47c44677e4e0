"""`python -m tools.bench.express`: what the Express middleware adds to a request, with leases and without, beside none.

Run by hand, after `npm ci` in clients/express. One node and one Valkey on this machine; overhead.js says what it does.
"""

import os
import subprocess
from pathlib import Path

from tools.bench.place import prepared_place
from tools.bench.variant import running
from tools.bench.variants import tidegate_lane
from tools.bench.workload import callers

PACKAGE = Path(__file__).parents[2] / "clients" / "express"


def main() -> None:
    """Measure, and print what it prints."""
    with prepared_place() as place, running(tidegate_lane.VARIANT, place) as server:
        env = os.environ | {"TIDEGATE_URL": server.url, "TIDEGATE_KEY": next(iter(callers("one"))).key}
        subprocess.run(["node", "bench/overhead.js"], cwd=PACKAGE, env=env, check=True, timeout=120)


if __name__ == "__main__":
    main()
