"""The region's state as limit resolution needs it, in nodes and agents: unreachable peers, and the shares' revision."""

from collections.abc import Callable, Iterator, Mapping

import structlog

from data_plane.config.index import RuleIndex
from data_plane.config.limit_resolution import RegionFacts
from data_plane.config.rulebook import Rulebook
from data_plane.config.strict_limits import only_from_us
from tidegate.contract.calendar import EPOCH_FLOOR_US
from tidegate.contract.limits import BUCKET_ALGORITHMS, LimitRule

log = structlog.get_logger()

UNPROVEN = -1
"""The revision of strict limits before their shares are proven: every store refuses it."""


class RegionState:
    """Keeps the facts by which rulebooks resolve limits: unreachable peers, and the revision of proven shares.

    ``rights``: rights of strict limits move here (not on a Cluster). ``in_force`` returns the rulebook that decisions
    use; it differs from the configuration's while enforcement overrides have ended.
    """

    def __init__(self, in_force: Callable[[], Rulebook], *, rights: bool) -> None:
        self._in_force = in_force
        self._rights = rights
        self._book: Rulebook | None = None
        self._strict: dict[int, LimitRule] = {}
        self._moves_over_us: frozenset[int] = frozenset()
        """When shares that moved are the only ones that count."""
        self._revision = self._required = 0
        self._facts = RegionFacts(revision=UNPROVEN)
        self.proven = not rights
        """Whether the shares in force are the newest, or an agent of this region vouches for them."""

    @property
    def unreachable(self) -> tuple[tuple[str, int], ...]:
        """Unreachable peers, each with since when (microseconds)."""
        return self._facts.unreachable

    @property
    def strict(self) -> Mapping[int, LimitRule]:
        """The strict limits of the configuration, by id."""
        return self._strict

    def apply(self, index: RuleIndex, revision: int) -> dict[int, LimitRule]:
        """Take over a configuration that is about to be in force. Returns strict limits with other shares, by id."""
        self._revision = revision
        if index.book is self._book:
            self.require(self._required)
            return {}
        strict = {rule.id: rule for rule in index.book.rules() if rule.mode == "strict"}
        changed = {id: rule for id, rule in strict.items() if _figures(rule) != _figures(self._strict.get(id))}
        self._book, self._strict = index.book, strict
        self._moves_over_us = frozenset(over_us for rule in strict.values() for over_us in _moves_over_us(rule))
        self._use(self._facts._replace(revision=self._shares_revision(), rights=self._rights))
        return changed

    def set_unreachable(self, unreachable: tuple[tuple[str, int], ...]) -> None:
        """Set the unreachable peers, each with since when."""
        if unreachable != self._facts.unreachable:
            log.info("peers_unreachable", peers=[name for name, _ in unreachable])
            self._use(self._facts._replace(unreachable=unreachable))

    def drop_finished_moves(self, now_us: int) -> None:
        """Resolve limits anew where a move of shares is over."""
        at_us = max((over_us for over_us in self._moves_over_us if over_us <= now_us), default=0)
        if at_us != self._facts.at_us:
            self._use(self._facts._replace(at_us=at_us))

    def prove(self) -> None:
        """Serve strict limits from now on."""
        if not self.proven:
            self.proven = True
            log.info("shares_proven", revision=self._revision)
            self._use_newest_revision()

    def require(self, revision: int) -> bool:
        """Resolve by the newest revision if limits are resolved by one before ``revision``, which the store refuses.

        Returns whether the newest is not before it.
        """
        self._required = revision
        if self._facts.revision < revision:
            self._use_newest_revision()
        return self._revision >= revision

    def _use_newest_revision(self) -> None:
        if self._facts.revision != self._shares_revision():
            self._use(self._facts._replace(revision=self._shares_revision()))

    def _shares_revision(self) -> int:
        return self._revision if self.proven else UNPROVEN

    def _use(self, facts: RegionFacts) -> None:
        self._facts = facts
        if self._book is not None:
            self._book.resolve_by(facts)
        in_force = self._in_force()
        if in_force is not self._book:
            in_force.resolve_by(facts)


def _moves_over_us(rule: LimitRule) -> Iterator[int]:
    """When moves of a limit's shares may be over. Epochs of clients' own buckets may be longer: by each doubling."""
    for step in (*rule.steps[1:], *rule.parts[1:]):
        yield only_from_us(rule, step)
    if rule.algorithm in BUCKET_ALGORITHMS:
        for step in rule.parts[1:]:
            yield from (only_from_us(rule, step) + (EPOCH_FLOOR_US << times) for times in range(18))


def _figures(rule: LimitRule | None) -> tuple[object, ...] | None:
    """What decides how much each region owns."""
    return None if rule is None else (rule.limit, rule.burst, rule.shares, rule.steps, rule.parts)
