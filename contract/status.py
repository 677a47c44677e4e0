"""What a node says of itself to the control plane when it opens its stream, and at ``/v1/status``."""

import msgspec


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """A node introduces itself and what it already has (revision 0 and an empty digest: nothing)."""

    node: str
    region: str
    revision: int = 0
    digest: str = ""
    version: str = ""
