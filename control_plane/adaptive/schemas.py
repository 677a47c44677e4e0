"""The shapes of an adaptive policy."""

from typing import Annotated, Literal

from pydantic import Field

from control_plane.web.fields import Body, Name, Priority, View
from tidegate.contract.load import MAX_SIGNAL, Signal

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class StepFields(Body):
    """While the load is above this, the factor is that."""

    above: Annotated[float, Field(gt=0, le=100, examples=[0.8])]
    factor: Annotated[float, Field(gt=0, lt=1, examples=[0.5])]


class PolicyFields(Body):
    """What can be written of a policy. A load of 1.0 means a full backend; a tick is a second."""

    type: Literal["controller", "steps"] = "controller"
    target: Annotated[float, Field(ge=0.05, le=1.0)] = 0.8
    """The load to stay below."""
    floor: Annotated[float, Field(ge=0.01, le=1.0)] = 0.2
    """The lowest factor that load alone leads to."""
    steps: list[StepFields] = Field(
        default=[StepFields(above=0.8, factor=0.5), StepFields(above=0.6, factor=0.75)], min_length=1, max_length=16
    )
    """For the type `steps`, from the highest load down."""
    hysteresis: Annotated[float, Field(ge=0.0, le=0.5)] = 0.1
    """How far below its bound the load must be expected after a raise."""
    smoothing: Annotated[float, Field(ge=0.05, le=1.0)] = 0.5
    """The weight of the newest tick in the smoothed load."""
    cut_after: Annotated[int, Field(ge=1, le=60)] = 2
    """Ticks above the target before a cut."""
    raise_after: Annotated[int, Field(ge=1, le=600)] = 5
    """Ticks well below before the first raise."""
    deepest_cut: Annotated[float, Field(ge=0.05, le=0.99)] = 0.5
    """One cut leaves at least this share of the factor."""
    raise_by: Annotated[float, Field(ge=0.001, le=1.0)] = 0.05
    signals: dict[Signal, Annotated[float, Field(gt=0, le=MAX_SIGNAL)]] = Field(
        default={"cpu": 1.0, "queue_delay_ms": 100.0}, min_length=1, examples=[{"cpu": 1.0, "queue_delay_ms": 100}]
    )
    """For each signal that counts, the value that means a load of 1.0."""
    min_reporters: Annotated[int, Field(ge=1, le=100)] = 2
    """A cut needs so many reporters of the same signal."""
    stale_after_s: Annotated[float, Field(ge=2, le=600)] = 10.0
    """A report older than this is ignored."""
    hold_s: Annotated[float, Field(ge=0, le=3600)] = 15.0
    """How long a factor is held when too few report, before it recovers step by step."""
    critical: Priority | None = None
    """Plans of this priority or a higher one are critical."""
    reserve: Annotated[float, Field(ge=0.0, le=0.9)] = 0.0
    """The share of a backend's capacity that only critical plans may use."""
    class_floor: Share = 0.0
    """No class's own factor falls below this."""
    retry_after_s: Annotated[int, Field(ge=1, le=600)] = 5
    """The least that shed clients must wait."""


class PolicyCreate(PolicyFields):
    """A new policy."""

    policy: Name


class PolicyReplace(PolicyFields):
    """A policy as it shall be."""

    policy: Name | None = None


class StepView(View):
    """While the load is above this, the factor is that."""

    above: float
    factor: float


class PolicyView(View):
    """A policy as it is, every default filled in; it can be sent back as it is."""

    policy: str
    type: Literal["controller", "steps"]
    target: float
    floor: float
    steps: list[StepView]
    hysteresis: float
    smoothing: float
    cut_after: int
    raise_after: int
    deepest_cut: float
    raise_by: float
    signals: dict[Signal, float]
    min_reporters: int
    stale_after_s: float
    hold_s: float
    critical: int | None
    reserve: float
    class_floor: float
    retry_after_s: int
