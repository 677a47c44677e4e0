"""One limit of each algorithm, with the keys that a node makes for clients."""

from data_plane.config.counter_keys import subject_of
from data_plane.config.limit_resolution import RegionFacts, ResolvedLimit
from data_plane.config.routes import UNMATCHED
from data_plane.store.subjects import UNKNOWN_ADDRESS
from tidegate.contract.config import Client
from tidegate.contract.limits import Algorithm, LimitRule
from tools.bench.workload import HOUR_US, REGION

ALGORITHMS: tuple[Algorithm, ...] = (
    "fixed_window", "sliding_window", "token_bucket", "leaky_bucket", "sliding_log",
)  # fmt: skip
LIMIT = 1_000
USUAL_NAME_LENGTH = 16
# Of a bucket's units, so many that its state lasts: one that is full again is forgotten.
LASTING_COST = LIMIT // 2


def bound_limit(algorithm: Algorithm) -> ResolvedLimit:
    """A limit by client and hour, ready for the script."""
    rule = LimitRule(
        id=1_001, name="hourly", algorithm=algorithm, limit=LIMIT, window_us=HOUR_US,
        mode="shared",
    )  # fmt: skip
    return ResolvedLimit(rule, UNMATCHED, REGION, {}, RegionFacts())


def counter_key(limit: ResolvedLimit, number: int, name_length: int = USUAL_NAME_LENGTH) -> bytes:
    """The key of a client's counter; its name has ``name_length`` characters."""
    name = f"{number:0{name_length}}"
    subject = subject_of(Client(client=name, plan="p"), UNKNOWN_ADDRESS, {})
    return limit.key_builder.key(subject)
