"""Rules switched off one at a time, in the scripts and services that run: each must break a scenario."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest.mock import patch

from control_plane.quotas.share_schedule import Situation
from data_plane.replicate.sender import Sender
from data_plane.rights.client import RightsClient
from data_plane.store.script_host import ScriptHost


class Edit(NamedTuple):
    """Some lines of ``lua/`` are others; ``breaks`` is the scenario that must go red."""

    breaks: str
    lines: tuple[tuple[str, str], ...]


class Switch(NamedTuple):
    """Something in Python is another; ``target`` is a dotted name."""

    breaks: str
    target: str
    instead: Any


class Both(NamedTuple):
    """Two rules that each keep the promise alone are off together."""

    edit: Edit
    switch: Switch

    @property
    def breaks(self) -> str:
        return self.edit.breaks

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        return self.edit.lines


class EditedHost(ScriptHost):
    """Runs scripts with other lines in them."""

    def __init__(self, lines: tuple[tuple[str, str], ...]) -> None:
        super().__init__()
        self._lines = lines

    def text_of(self, source: str) -> str:
        for old, new in self._lines:
            source = source.replace(old, new)
        return source


@contextlib.contextmanager
def mutated(mutation: Edit | Switch | Both) -> Iterator[ScriptHost]:
    """The host to run a world on while the rule is off."""
    lines = () if isinstance(mutation, Switch) else mutation.lines
    switch = mutation.switch if isinstance(mutation, Both) else mutation
    with contextlib.ExitStack() as stack:
        if isinstance(switch, Switch):
            stack.enter_context(patch(switch.target, switch.instead))
        yield EditedHost(lines)


def one(breaks: str, old: str, new: str) -> Edit:
    return Edit(breaks, ((old, new),))


_choose_peer, _note_answer = RightsClient.choose_peer, RightsClient.note_answer
_begin_epoch = Sender.begin_epoch


def _first_instead_of_richest(self, key, id, shares, missing, now_us):
    self._request(key, id).have.clear()
    return _choose_peer(self, key, id, dict.fromkeys(self._peers, 10**9), missing, now_us)


def _never_in_vain(self, key, id, shares, missing, now_us):
    return _choose_peer(self, key, id, shares, 0, now_us)


def _never_empty(self, key, answer, gained, now_us, *, refill_us=0):
    _note_answer(
        self, key, answer._replace(is_empty=False, have=max(1, answer.have)), gained, now_us, refill_us=refill_us
    )


async def _always(*_: object) -> bool:
    return True


def _as_counts_of_the_ended_epoch(self, epoch):
    names = {session: session.own_epoch for session in self.sessions.values()}
    _begin_epoch(self, epoch)
    for session, name in names.items():
        session.own_epoch = name


MUTATIONS: dict[str, Edit | Switch | Both] = {
    # Shares
    "a changed share applies from a window in which nothing was spent under the old one": one(
        "shares-cut-below-use", "if params.quotas[i][1] <= id then", "if true then"
    ),
    "a share rises only once every cut is acknowledged": Switch(
        "cut-not-acknowledged", "tools.simulate.control.situation", lambda *_: Situation([], None, [])
    ),
    "what was used beyond a lowered limit stays as a shortfall": one(
        "limit-lowered",
        "      add_rights(state, id, gained)",
        "      state.taken = math.min(state.taken, math.max(0, rights_share(params, state.id) + state.net))"
        " add_rights(state, id, gained)",
    ),
    "who has older shares than the marker is refused": one(
        "node-from-an-old-snapshot",
        "if not current or current[2] > revision and not older_too then",
        "if not current then",
    ),
    # The store
    "a store that started again is in a new epoch": one(
        "old-copy-restored",
        "if sub(stored, from) == ARGV[1] then\n      return { incarnation }",
        "if true then\n      return { incarnation }",
    ),
    "a new epoch owns nothing in windows that may have been forgotten": one(
        "lost-before-rollover",
        "params.quiet = params.birth > 0 and id_of(params, params.birth + params.skew) or -1152921504606846976",
        "params.quiet = -1152921504606846976",
    ),
    "no rights on a store that evicts": one("key-evicted", "if ARGV[2] ~= 'noeviction' then", "if false then"),
    "window ids never go back": one("clock-steps-back", "if id <= stored then", "if id == stored then"),
    "only proven shares begin an epoch, or an agent with newer ones raises it": Both(
        one(
            "flushed-with-old-shares",
            "revision, horizon = math.max(revision, tonumber(ARGV[2])), tonumber(ARGV[3])",
            "horizon = tonumber(ARGV[3])",
        ),
        Switch("flushed-with-old-shares", "data_plane.rights.epochs.StoreEpochs._prove", _always),
    ),
    "only proven shares begin an epoch, also after the newest died": Switch(
        "died-with-its-store", "data_plane.rights.epochs.StoreEpochs._prove", _always
    ),
    "only proven shares begin an epoch, also after a power loss": Switch(
        "power-lost-share-freed", "data_plane.rights.epochs.StoreEpochs._prove", _always
    ),
    "nodes have notice before the store refuses what an agent that starts calls older": Switch(
        "agent-starts", "data_plane.rights.epochs.NOTICE_S", 0.0
    ),
    "nodes that have notice of a newer revision take it up": Switch(
        "agent-starts", "data_plane.rights.region_state.RegionState.require", lambda *_: True
    ),
    # Rights in windows
    "a gift says all that was ever given": one(
        "everything-twice",
        "local known, known_quanta = ledger_entry(entries, RECEIVED, name, incarnation, id)",
        "local known, known_quanta = 0, 0",
    ),
    "a donor gives only to who knows all that it was given": one(
        "donor-keeps-half", "if total == ask.units and left > 0 then", "if left > 0 then"
    ),
    "a donor pays first": one("cut-after-95", "add_rights(state, ask.id, -units)", "add_rights(state, ask.id, 0)"),
    "a donor keeps half": one("donor-keeps-half", "math.max(1, floor(left / 2))", "left"),
    "a gift counts under its own id": Edit(
        "gift-delayed",
        (
            (
                "if to ~= params.incarnation or id < current - reach or id > current + reach then",
                "if to ~= params.incarnation then",
            ),
            ("add_rights(state, id, gained)", "add_rights(state, state.id, gained)"),
        ),
    ),
    "a sliding window keeps to both windows": one(
        "fill-then-hammer",
        "room = math.min(room, floor((left * before + (params.ticks - left) * own) / params.ticks) - state.taken)",
        "",
    ),
    "a gift of a sliding window leaves its donor within both": one(
        "give-after-rollover",
        "return id == state.id and rights_left(params, state) or 0",
        "local own = rights_owned(params, state, 0) - state.taken"
        " return id == state.id and (params.algorithm == 1 and own or rights_left(params, state)) or 0",
    ),
    "a log keeps to both windows": one(
        "fill-then-hammer-log",
        "math.min(own, rights_owned(params, state, -1)) - log_used(state, params.length)",
        "own - log_used(state, params.length)",
    ),
    "rights of the next window are given near its beginning only": one(
        "clock-far-ahead",
        "now + params.skew >= fixed_start(params.length, params.anchor, id) and rights_owned(params, state, 1) or 0",
        "rights_owned(params, state, 1)",
    ),
    # Asking
    "ask while rights last for the way": one(
        "no-false-denial",
        "return math.max(cost, floor(params.horizon * rights_demand(params, state) / 1000000))",
        "return cost",
    ),
    "ask the richest": Switch(
        "richest-first", "data_plane.rights.client.RightsClient.choose_peer", _first_instead_of_richest
    ),
    "leave in peace who had nothing": Switch(
        "asked-in-vain", "data_plane.rights.client.RightsClient.note_answer", _never_empty
    ),
    "ask seldom where all together have too little": Switch(
        "asked-in-vain-costly", "data_plane.rights.client.RightsClient.choose_peer", _never_in_vain
    ),
    # Rights in buckets
    "capacity that comes back brings no tokens": one(
        "lender-drained",
        "state.epoch, state.borrowed, state.lent, state.lent_before = state.epoch + 1, 0, 0, state.lent",
        "state.level = state.level + state.lent * quanta"
        " state.epoch, state.borrowed, state.lent, state.lent_before = state.epoch + 1, 0, 0, state.lent",
    ),
    "a loan ends with its epoch": one(
        "loans-end",
        "state.epoch, state.borrowed, state.lent, state.lent_before = state.epoch + 1, 0, 0, state.lent",
        "state.epoch, state.lent, state.lent_before = state.epoch + 1, 0, state.lent",
    ),
    "capacity takes its part of the tokens along": one(
        "tokens-lent",
        "state.lent, state.level = state.lent + units, state.level - moved",
        "state.lent = state.lent + units",
    ),
    # Counts
    "of two reports the larger is the newer": one(
        "shared-everything-twice",
        "if window < entry.window or window == entry.window and taken + returned <= entry.taken + entry.returned then",
        "if window < entry.window then",
    ),
    "an unreachable region keeps its share": Switch(
        "shared-one-link-cut", "data_plane.rights.region_state.RegionState.set_unreachable", lambda *_: None
    ),
    "a message names the epoch of its counts, also behind one of the epoch before": Switch(
        "shared-lost-while-sending", "data_plane.replicate.sender.Sender.begin_epoch", _as_counts_of_the_ended_epoch
    ),
    "what an earlier epoch counted still counts": one(
        "shared-lost-and-used-again",
        "if entry.name == peer and (size or entry.window == window) then",
        "if entry.window == window and entry.name:match('^[^/]*') == peer:match('^[^/]*') then entry.name = peer",
    ),
    "counts of a lost store are handed back": Switch(
        "shared-store-lost", "data_plane.replicate.anti_entropy.AntiEntropy._queue_ended_epochs", lambda *_: None
    ),
    "a mark outlives sending": one(
        "shared-lossy-owner-dies",
        "call('ZADD', slice, spread(marks))",
        "for i = 2, #marks, 2 do call('ZREM', slice, marks[i]) end",
    ),
    "large news leaves at once": one(
        "shared-near-the-limit", "< cost then\n    return now, dirty", "< 0 then\n    return now, dirty"
    ),
}
