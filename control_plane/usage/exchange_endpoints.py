"""``GET /v1/exchange``: how each region stands to the others, asked of it at this moment."""

from fastapi import APIRouter, Depends, Request

from control_plane.access.principals import by_method
from control_plane.usage.questions import RegionAnswer
from control_plane.web.fields import View

router = APIRouter(prefix="/v1/exchange", tags=["regions"], dependencies=[Depends(by_method)])


class PeerView(View):
    """Another region, as the region that was asked has it."""

    region: str
    staleness_s: float | None
    """How old its counts are there, at most; null while none came."""
    unreachable: bool
    units_given: int
    """Units of strict limits that went there since the agent began."""
    units_received: int


class RegionExchangeView(View):
    """One region's answer, or in `reason` why there is none. Counts are since the agent began that answered."""

    region: str
    agent: str | None
    shares_proven: bool | None
    """Whether strict limits are served: the store's shares are known to be right."""
    overshoots: int | None
    """Merges of counts that found a counter over its limit."""
    most_over_units: int | None
    """The most units over a limit that were seen."""
    peers: list[PeerView]
    reason: str | None


class Exchange(View):
    """Every region, by name."""

    items: list[RegionExchangeView]


@router.get("")
async def get_exchange(request: Request) -> Exchange:
    """How each region stands to the others: staleness, moved rights, overshoot, as one of its agents has it now."""
    answers = await request.state.questions.exchange()
    return Exchange(items=[_view(region, answer) for region, answer in answers.items()])


def _view(region: str, answer: RegionAnswer) -> RegionExchangeView:
    found = answer.exchange
    if found is None:
        why = "its agent is of a version that does not report it" if answer.node is not None else answer.reason
        return RegionExchangeView(
            region=region, agent=answer.node, shares_proven=None, overshoots=None, most_over_units=None, peers=[],
            reason=why,
        )  # fmt: skip
    return RegionExchangeView(
        region=region, agent=answer.node, shares_proven=found.shares_proven, overshoots=found.overshoots,
        most_over_units=found.most_over_units, peers=[PeerView.model_validate(one) for one in found.peers], reason=None,
    )  # fmt: skip
