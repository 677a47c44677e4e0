"""A limit's script argument with a cost of its own, for ``lua/decide.lua``: where its price follows load."""

import struct

OWN_COST = 128
_COST = struct.Struct("<d")


def with_own_cost(params: bytes, cost: int) -> bytes:
    """``params`` as ``domain.wire.encode_rule`` packed them, charged ``cost`` units whatever the check costs."""
    return bytes((params[0] | OWN_COST,)) + params[1:] + _COST.pack(cost)
