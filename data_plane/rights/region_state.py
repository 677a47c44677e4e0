"""How this region stands to the others: binds limits by it, in nodes and agents alike."""

from collections.abc import Callable, Mapping

import structlog

from data_plane.config.index import RuleIndex
from data_plane.config.rulebook import Rulebook
from data_plane.config.shared_packing import Standing
from tidegate.contract.limits import LimitRule

log = structlog.get_logger()

UNPROVEN = -1
"""The shares' revision that terms of strict limits carry before they are proven: every store refuses it."""


class RegionState:
    """Who is unreachable, and by which revision of the shares strict limits are served; what is bound follows it.

    ``rights``: rights of strict limits move here (not on a Cluster). ``in_force`` is the rulebook by which decisions
    are made; it may differ from the one of the configuration by switches that have ended.
    """

    def __init__(self, in_force: Callable[[], Rulebook], *, rights: bool) -> None:
        self._in_force = in_force
        self._rights = rights
        self._book: Rulebook | None = None
        self._strict: dict[int, LimitRule] = {}
        self._revision = 0
        self._standing = Standing(revision=UNPROVEN)
        self.proven = not rights
        """Whether the shares in force are known to be the newest, or this region's agent vouches for them."""

    @property
    def unreachable(self) -> tuple[tuple[str, int], ...]:
        """Peers that are not heard, each with since when (microseconds)."""
        return self._standing.silent

    @property
    def strict(self) -> Mapping[int, LimitRule]:
        """The strict limits of the configuration, by id."""
        return self._strict

    def applied(self, index: RuleIndex, revision: int) -> dict[int, LimitRule]:
        """A configuration is about to be in force; the strict limits, by id, that it divides otherwise than before."""
        self._revision = revision
        if index.book is self._book:
            return {}
        strict = {rule.id: rule for rule in index.book.rules() if rule.mode == "strict"}
        changed = {id: rule for id, rule in strict.items() if _figures(rule) != _figures(self._strict.get(id))}
        self._book, self._strict = index.book, strict
        self._stand(self._standing._replace(revision=self._of_shares(), rights=self._rights))
        return changed

    def reach(self, unreachable: tuple[tuple[str, int], ...]) -> None:
        """Note who is unreachable by now, each with since when."""
        if unreachable != self._standing.silent:
            log.info("peers_unreachable", peers=[name for name, _ in unreachable])
            self._stand(self._standing._replace(silent=unreachable))

    def prove(self) -> None:
        """Serve strict limits from now on."""
        if not self.proven:
            self.proven = True
            log.info("shares_proven", revision=self._revision)
            self.renew()

    def renew(self) -> None:
        """Bind by the newest revision: the store refuses older ones, also where no limit changed since."""
        if self._standing.revision != self._of_shares():
            self._stand(self._standing._replace(revision=self._of_shares()))

    def _of_shares(self) -> int:
        return self._revision if self.proven else UNPROVEN

    def _stand(self, standing: Standing) -> None:
        self._standing = standing
        if self._book is not None:
            self._book.stand(standing)
        in_force = self._in_force()
        if in_force is not self._book:
            in_force.stand(standing)


def _figures(rule: LimitRule | None) -> tuple[object, ...] | None:
    """What decides who owns what."""
    return None if rule is None else (rule.limit, rule.burst, rule.shares, rule.steps, rule.parts)
