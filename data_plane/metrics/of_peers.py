"""Metrics of the exchange with other regions: counts of shared limits, rights of strict limits."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from prometheus_client.core import Metric

from data_plane.http.peer_handler import PeerHandler
from data_plane.metrics.exposition import Part, counter, counter_by, gauge, gauge_by
from data_plane.replicate.peer_session import ReplicationTally
from data_plane.rights.steps import RightsTally


class Wire(Protocol):
    """Traffic of this agent with peers."""

    sent_bytes: int
    received_bytes: int
    messages: int


class PeerFigures(NamedTuple):
    """The exchange now; ``staleness_s`` is by peer the age of its oldest counts here."""

    tally: ReplicationTally
    wire: Wire
    handler: PeerHandler
    staleness_s: Mapping[str, float]
    unreachable: Sequence[str]
    slices: int


def of_peers(figures: Callable[[], PeerFigures]) -> Part:
    """Counts sent and received, and overshoots found by merges."""

    def families() -> Iterator[Metric]:
        now = figures()
        tally, wire, handler = now.tally, now.wire, now.handler
        yield counter("tidegate_peer_cells_sent", "Cells sent to other regions", tally.sent_cells)
        yield counter("tidegate_peer_cells_handed_back", "Cells that lost stores got back", tally.handed_back_cells)
        yield counter("tidegate_peer_bytes_sent", "Bytes sent to other regions", wire.sent_bytes)
        yield counter("tidegate_peer_bytes_received", "Bytes of other regions' messages and answers",
                      handler.received_bytes + wire.received_bytes)  # fmt: skip
        yield counter("tidegate_peer_messages_sent", "Messages sent to other regions", wire.messages)
        yield counter("tidegate_peer_messages_received", "Messages of other regions", handler.received)
        yield counter_by("tidegate_peer_failures", "Messages that a peer did not acknowledge", "peer", tally.failures)
        yield counter_by(
            "tidegate_peer_messages_refused", "Messages of peers refused", "reason",
            {**handler.refused_by_reason, "implausible_cell": tally.implausible},
        )  # fmt: skip
        yield counter("tidegate_peer_messages_repeated", "Messages of peers received before", tally.repeated)
        yield gauge_by("tidegate_peer_staleness_seconds", "Age of a peer's oldest counts here", "peer", now.staleness_s)
        yield gauge_by(
            "tidegate_peer_silent", "1 while a peer is unreachable and its share is reserved", "peer",
            {name: float(name in now.unreachable) for name in now.staleness_s},
        )  # fmt: skip
        yield counter_by("tidegate_peer_silences", "Times that a peer became unreachable", "peer", tally.silences)
        yield gauge("tidegate_peer_slices", "Slices of counters that this agent sends", now.slices)
        yield counter("tidegate_peer_sweeps", "Times that everything was sent again", tally.sweeps)
        yield counter("rate_limit_overshoots", "Merges that found a counter over its limit", tally.over)
        yield gauge("rate_limit_overshoot_most_units", "Most units over a limit found by a merge", tally.most_over)

    return families


def of_rights(tally: RightsTally, held: Mapping[str, int]) -> Part:
    """Rights asked for, received, given and held."""

    def families() -> Iterator[Metric]:
        yield counter_by("tidegate_rights_asked", "Requests sent for rights", "peer", tally.asked)
        yield counter_by("tidegate_rights_messages", "Messages with requests for rights", "peer", tally.messages)
        yield counter_by("tidegate_rights_questions", "Requests of peers answered", "peer", tally.questions)
        yield counter_by("tidegate_rights_received_units", "Rights received", "peer", tally.units_received)
        yield counter_by("tidegate_rights_given_units", "Rights given", "peer", tally.units_given)
        yield gauge_by("tidegate_rights_held_units", "Rights of counters asked for in the last minute", "limit", held)
        yield counter_by("tidegate_rights_failures", "Requests that a peer did not answer", "peer", tally.failures)
        yield counter_by("tidegate_rights_refused", "Strict steps refused, by reason", "reason", tally.refused)

    return families
