"""What client libraries denied from memory, as they tell a node afterwards: usage and the denial log are to know."""

from typing import Annotated

import msgspec

from contract.causes import LimitCause
from contract.holds import Asker

MAX_DENIALS = 100
"""The most of one report."""
Requests = Annotated[int, msgspec.Meta(ge=1, le=10**9)]
Units = Annotated[int, msgspec.Meta(ge=1, le=10**12)]


class RepeatedDenial(Asker, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``requests`` of one check that were denied again as a node had denied it, without asking; ``cost`` is their sum.

    ``policy`` and ``cause`` are those of the node's denial.
    """

    requests: Requests
    cost: Units
    policy: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    cause: LimitCause = "used_up"


class RepeatedDenials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/denials``."""

    denials: Annotated[list[RepeatedDenial], msgspec.Meta(min_length=1, max_length=MAX_DENIALS)]
