"""The picture of the README, by the simulator: ``python -m tools.docs.cut``.

One limit, the same requests, three regions that are cut from each other: as ``shared``, and as ``strict``.
"""

import msgspec

from data_plane.store.script_host import ScriptHost
from tools.docs.flows import DOCS
from tools.simulate.command import BUNDLED
from tools.simulate.draw import side_by_side
from tools.simulate.scenario import load
from tools.simulate.world import World

REGIONS = ("us-east", "eu-west", "ap-south")


def picture() -> str:
    """The two runs beside each other."""
    scenario = load(BUNDLED / "three-way-cut.toml")
    worlds = {
        "shared: bounded, nobody stands still": World(
            msgspec.structs.replace(scenario, mode="shared"), scenario.seed, ScriptHost()
        ),
        "strict: never above the limit": World(scenario, scenario.seed, ScriptHost()),
    }
    for world in worlds.values():
        world.run()
    return side_by_side(worlds, REGIONS)


def main() -> None:
    """Write it anew."""
    (DOCS / "pictures/cut.svg").write_text(picture(), "utf-8")


if __name__ == "__main__":
    main()
