"""Rules and histories for the suite."""

from typing import Any

from tidegate.contract.limits import LimitRule, violations

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
START_US = 1_700_006_400_000_000
"""2023-11-15T00:00:00Z: the start of a day, and so of a minute and an hour."""


def rule(algorithm: str, limit: int, window_us: int | None = None, **members: Any) -> LimitRule:
    """A sound rule; ``id`` 1 unless given."""
    found = LimitRule(
        **{"id": 1, "name": algorithm, "mode": "regional"} | members,
        algorithm=algorithm,
        limit=limit,
        window_us=window_us,
    )
    assert not list(violations(found)), list(violations(found))
    return found
