"""The shapes of a quota."""

from datetime import datetime
from typing import ClassVar, Literal

from pydantic import Field

from control_plane.limits.schemas import Shares
from control_plane.web.fields import Body, Name, View
from tidegate.contract.limits import Mode


class QuotaReplace(Body):
    """A limit's shares by region: fractions that sum to 1, or ``auto``."""

    shares: Shares | Literal["auto"] = Field(examples=[{"us-east": 0.5, "eu-west": 0.5}, "auto"])


class QuotaFree(Body):
    """A region that cannot acknowledge a cut, and is known to decide nothing any more."""

    region: Name


class FreedRegions(View):
    """Regions whose acknowledgement a move does not wait for, because an operator said so."""

    freed: list[str]


class SharesRecord(View):
    """A limit's shares as the audit log keeps them when they move by themselves, in units or as fractions."""

    shares: dict[str, float]


class MoveView(View):
    """A move of shares that is under way: the cut is made, and the raise waits."""

    since: datetime
    cut_revision: int
    """Nodes that have this revision, or a newer one, go by the cut."""
    waiting_for: list[str]
    raise_at: datetime | None
    """When the raise comes, where it only waits for windows to end (mode `regional`)."""
    freed: list[str]
    author: str
    reason: str | None


class BalanceView(View):
    """What the rebalancer last decided on a limit with `auto` shares."""

    at: datetime
    moved: bool
    reason: str
    demand: dict[str, float]
    """What each region asked for lately, in units."""


class QuotaView(View):
    """How a limit is split. ``shares`` as written, ``equal`` where nothing was; ``units`` are what regions get.

    ``in_force`` is what nodes have now: less than ``units`` while a ``move`` waits.
    """

    UNTAGGED: ClassVar[set[str]] = {"in_force", "move", "balance"}

    plan: str | None
    limit: str
    mode: Mode
    shares: dict[str, float] | Literal["auto", "equal"]
    units: dict[str, int]
    in_force: dict[str, int]
    move: MoveView | None = None
    balance: BalanceView | None = None
