"""A node as it is deployed: the decision lane in front, `tidegate data-plane`."""

from tools.bench.place import Place
from tools.bench.variant import Launch, Variant, python_module
from tools.bench.variants.node_settings import node_env


def _launch(place: Place, port: int) -> Launch:
    return Launch([*python_module("tidegate"), "data-plane"], port, node_env(place, port))


AUTHORIZE = Variant(
    "lane-auth", "Tidegate, decision lane, forward-auth (`GET /v1/authorize/...`)", _launch, path="/v1/authorize",
    subrequests=True, is_tidegate=True,
)  # fmt: skip
DENIED = Variant(
    "lane-denied", "Tidegate, decision lane, clients that have used up their limit", _launch, path="/v1/check",
    plans=("spent",), is_tidegate=True, denies=True,
)  # fmt: skip
VARIANT = Variant(
    "lane", "Tidegate, decision lane", _launch, path="/v1/check", batch_path="/v1/check/batch",
    plans=("one", "three"), is_tidegate=True,
)  # fmt: skip
