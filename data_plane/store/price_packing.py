"""A limit's script argument with a price of its own, for ``lua/decide.lua``: what it costs follows load."""

import struct
from collections.abc import Sequence

from data_plane.store.packing import params_end

PRICED = 128
PRICE_BYTES = 16
_PRICE = struct.Struct("<dd")
_HEAD_BYTES = 9


def priced(params: bytes, cost: int, share: float) -> bytes:
    """``params`` as ``packing.encode_rule`` packed them, charged ``cost`` units whatever the check costs.

    ``share`` is what of the remaining units a client can still use at the average price, which is what it is told.
    """
    return bytes((params[0] | PRICED,)) + params[1:] + _PRICE.pack(cost, share)


def price_of(params: bytes, cost: int) -> int:
    """What a limit takes of a check of ``cost``."""
    return int(_PRICE.unpack(params[-PRICE_BYTES:])[0]) if params[0] & PRICED else cost


def is_priced(packed: bytes) -> bool:
    """Whether any limit of a check that ``packing.encode_check`` packed has a price."""
    return any(params[0] & PRICED for params in params_in(packed))


def params_in(packed: bytes) -> Sequence[bytes]:
    """Each limit's argument in a packed check, with its price where it has one."""
    params = []
    at = _HEAD_BYTES
    while at < len(packed):
        end = params_end(packed, at) + (PRICE_BYTES if packed[at] & PRICED else 0)
        params.append(packed[at:end])
        at = end
    return params
