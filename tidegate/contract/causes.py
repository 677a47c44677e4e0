"""Why a request was denied: the one closed set, for answers, the denial log and whoever explains them."""

from typing import Literal

LimitCause = Literal["used_up", "too_few_left", "cost_above_limit", "cannot_decide", "reduced_capacity"]
"""Of a 429.

- ``used_up``: nothing is left; ``too_few_left``: something, but less than was asked for.
- ``cost_above_limit``: more was asked for than the limit can ever hold.
- ``cannot_decide``: nobody knows what is left: the store is away, or has not yet taken up a ``strict`` limit.
- ``reduced_capacity``: a backend's load, not the caller, is to blame.
"""
CallerCause = Literal["missing_api_key", "unknown_api_key", "client_suspended", "blocked"]
"""Of a 401 or 403: no limit was looked at. It is the answer's ``error`` as well."""
Cause = LimitCause | CallerCause
