"""The shapes of a quota."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from contract.limits import Mode
from control_plane.web.fields import Body, Name, View

SUM_TOLERANCE = 1e-6
Fraction = Annotated[float, Field(ge=0, le=1)]


class QuotaReplace(Body):
    """A limit's shares by region: fractions that sum to 1, or ``auto``."""

    shares: Annotated[dict[Name, Fraction], Field(min_length=1, max_length=1_000)] | Literal["auto"] = Field(
        examples=[{"us-east": 0.5, "eu-west": 0.5}, "auto"]
    )

    @field_validator("shares")
    @classmethod
    def _sum_to_one(cls, value: dict[str, float] | Literal["auto"]) -> dict[str, float] | Literal["auto"]:
        if isinstance(value, dict) and abs(sum(value.values()) - 1) > SUM_TOLERANCE:
            raise ValueError(f"the shares sum to {sum(value.values()):g}, not to 1")
        return value


class QuotaView(View):
    """How a limit is split. ``shares`` as written, ``equal`` where nothing was; ``units`` are what regions have."""

    plan: str | None
    limit: str
    mode: Mode
    shares: dict[str, float] | Literal["auto", "equal"]
    units: dict[str, int]
