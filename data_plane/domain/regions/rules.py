"""Every rule that keeps a promise, as a switch, and the times that all regions agree on.

The service runs with every rule on. The mutation check of the simulation switches one off at a time: some scenario
must then break its promise, or the rule is not needed.
"""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Rules:
    """What a region does, rule by rule; each ``False`` is a mistake that somebody could make."""

    # Quotas
    shares_by_id: bool = True
    """A changed share applies from a window id that nothing was spent or given under, not in mid-window."""
    raise_after_cuts: bool = True
    """A share rises only from the id that every cut was acknowledged for."""
    negative_rights: bool = True
    """What was used beyond a lowered limit stays as a shortfall, which incoming rights cover first."""

    # The store
    marker_checked: bool = True
    """The store's marker names the incarnation and the revision; who differs from it is refused."""
    restart_is_new_incarnation: bool = True
    """A store with another run id may have forgotten: its states count no more."""
    quiet_after_birth: bool = True
    """A new incarnation owns nothing for every id up to the one that holds birth + skew."""
    gifts_addressed: bool = True
    """A gift counts only for the incarnation that it was given to."""
    noeviction_only: bool = True
    """Rights are refused on a store that may evict them."""
    ids_never_go_back: bool = True
    """A stored newer window id wins over a clock that stepped back."""

    # Rights in windows
    gifts_absolute: bool = True
    """A gift says all that was ever given under its id, not what is new."""
    known_checked: bool = True
    """A donor gives only to who knows all that it was given; else it repeats that."""
    donor_pays_first: bool = True
    """A donor's own rights fall in the same step that makes the gift."""
    gifts_remembered: bool = True
    """A receiver forgets no gift while its id lives."""
    gift_id_checked: bool = True
    """A gift counts under its own id only, and not at all once that id is over."""
    sliding_keeps_both: bool = True
    """A sliding window also weighs what it owned before; rights of this id alone are not enough."""
    sliding_give_keeps_both: bool = True
    """A gift leaves the donor of a sliding window within both of its conditions."""
    log_keeps_both: bool = True
    """A log stays within what is owned under the previous id as well as under this one."""
    next_id_near_boundary: bool = True
    """Rights of the next id are given only within the skew of its beginning."""
    generation_checked: bool = True
    """What belongs to another generation of the counter is ignored."""

    # Asking: these waste messages or rights when off
    asks_early: bool = True
    """Ask while rights still last for the round trip, not when they are gone."""
    richest_first: bool = True
    """Ask who is known to have most."""
    silence_after_empty: bool = True
    """Who had nothing to give is not asked again under that id until there is news."""
    seldom_in_vain: bool = True
    """Where all together have less than a request wants, as last heard, somebody is asked once a second at most."""
    gives_half: bool = True
    """A donor keeps half."""

    # Rights in buckets
    raise_mints_nothing: bool = True
    """Capacity that comes back brings no tokens."""
    borrower_drops: bool = True
    """A loan ends with its epoch."""
    lender_waits: bool = True
    """A lender takes its capacity back only when every clock has passed the end of the epoch."""
    tokens_move_along: bool = True
    """Capacity that goes takes its part of the tokens with it."""
    small_loans_refused: bool = True
    """No loan under 5% of the capacity: demand that wavers moves nothing."""

    # Counts
    newest_cell_wins: bool = True
    """Of two reports on one cell the larger sum is the newer; what comes late changes nothing."""
    silent_keep_their_share: bool = True
    """The share of a region that is not heard is left to it until it is heard again."""
    incarnations_summed: bool = True
    """What an earlier incarnation counted still counts."""
    cells_handed_back: bool = True
    """A region that lost its store is told what it had counted, and waits for that."""
    mark_outlives_sending: bool = True
    """A cell stays marked until every peer has acknowledged it."""
    ack_clears_its_version: bool = True
    """An acknowledgement clears the version it names, never a newer one."""
    marks_in_store: bool = True
    """Marks lie in the region's store, where whichever node owns the slice finds them."""
    large_news_at_once: bool = True
    """Unsent counts that matter leave with the next tick; others within a second."""
    heard_means_complete: bool = True
    """A peer is heard as of the oldest change that it has not told, not as of its last sign of life."""


ALL_RULES = Rules()
RULE_NAMES = tuple(field.name for field in fields(Rules))


@dataclass(frozen=True, slots=True)
class Timing:
    """Times in microseconds, the same in every region."""

    skew_us: int = 1_000_000
    """The largest difference of two regions' clocks (S)."""
    tick_us: int = 200_000
    lazy_us: int = 1_000_000
    """News that does not matter much is told within this time."""
    stale_after_us: int = 2_000_000
    heartbeat_us: int = 500_000
    sweep_us: int = 300_000_000
    """At least this often all counts are told again: no promise rests on it."""
    epoch_floor_us: int = 600_000_000
    """Loans of bucket capacity last to the end of an epoch of at least this length."""


DEFAULT_TIMING = Timing()
