"""The arguments of ``lua/rights.lua`` and ``lua/rights_steps.lua``: packed, little-endian, numbers as doubles."""

import struct

from data_plane.domain.regions.marker import Marker, View
from data_plane.domain.regions.terms import Terms

_ALGORITHMS = {"fixed_window": 0, "sliding_window": 1}
_HEAD = struct.Struct("<BddddddddB")
_QUOTA = struct.Struct("<dd")
_VIEW = struct.Struct("<dd")
_KEPT_QUOTAS = 8


def encode_terms(terms: Terms) -> bytes:
    """The terms of a strict window; only the newest quotas travel. ``KeyError`` for what scripts cannot do yet."""
    frame = terms.frame
    quotas = terms.schedule[-_KEPT_QUOTAS:]
    return _HEAD.pack(
        _ALGORITHMS[terms.algorithm],
        frame.length_us,
        frame.anchor_us,
        frame.ticks,
        frame.tick_us,
        terms.incarnation,
        terms.quiet_id,
        terms.skew_us,
        terms.horizon_us,
        len(quotas),
    ) + b"".join(_QUOTA.pack(quota.from_id, quota.share) for quota in quotas)


def encode_view(view: View) -> bytes:
    """What a node believes of its store."""
    return _VIEW.pack(view.incarnation, view.revision)


def encode_marker(marker: Marker) -> bytes:
    """The marker's value."""
    return struct.pack("<ddd", marker.incarnation, marker.revision, marker.birth_us) + marker.run_id.encode()


def decode_marker(value: bytes) -> Marker:
    """The reverse of ``encode_marker``."""
    incarnation, revision, birth_us = struct.unpack_from("<ddd", value)
    return Marker(int(incarnation), int(birth_us), int(revision), value[24:].decode())
