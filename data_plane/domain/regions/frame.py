"""Window ids and rights epochs, for the model of regions."""

from contract.calendar import WindowGrid as Frame
from contract.calendar import grid_of, id_at, start_us
from contract.limits import BUCKET_ALGORITHMS, LimitRule, capacity, nominal_window_us, reduced_rate
from data_plane.domain.regions.rules import Timing

__all__ = ["Frame", "first_free_id", "frame_of", "id_at", "start_us", "weight"]


def frame_of(rule: LimitRule, timing: Timing) -> Frame:
    """Windows of a window algorithm; for buckets the epochs at whose end loans of capacity end."""
    if rule.algorithm in BUCKET_ALGORITHMS:
        rate, unit = reduced_rate(max(1, rule.limit), nominal_window_us(rule))
        return Frame(max(timing.epoch_floor_us, -(-3 * capacity(rule) * unit // rate)))
    return grid_of(rule)


def weight(frame: Frame, id: int, now_us: int) -> int:
    """Ticks, of ``frame.ticks``, that the id before ``id`` still weighs: all of them before ``id`` begins."""
    elapsed = (now_us - start_us(frame, id)) // frame.tick_us
    return frame.ticks - min(max(elapsed, 0), frame.ticks)


def first_free_id(frame: Frame, now_us: int, skew_us: int) -> int:
    """The first id under which nothing can have been spent or given yet, here, by this clock."""
    return id_at(frame, now_us + skew_us) + 1
