"""Each rule is needed: with it switched off something breaks."""

from dataclasses import replace

import pytest

from data_plane.domain.regions.book import Cell
from data_plane.domain.regions.rules import ALL_RULES, DEFAULT_TIMING, RULE_NAMES
from data_plane.domain.regions.telling import Marked, Teller
from tests.simulation.test_directed import scenario
from tools.simulate.random_runs import run

BROKEN_BY = {
    "shares_by_id": "shares-cut-below-use",
    "raise_after_cuts": "cut-not-acknowledged",
    "negative_rights": "limit-lowered",
    "marker_checked": "node-from-an-old-snapshot",
    "restart_is_new_incarnation": "old-copy-restored",
    "quiet_after_birth": "lost-before-rollover",
    "gifts_addressed": "lost-after-spending-a-gift",
    "noeviction_only": "key-evicted",
    "ids_never_go_back": "clock-steps-back",
    "gifts_absolute": "everything-twice",
    "known_checked": "donor-keeps-half",
    "donor_pays_first": "cut-after-95",
    "gifts_remembered": "cut-after-95",
    "gift_id_checked": "gift-delayed",
    "sliding_keeps_both": "fill-then-hammer",
    "sliding_give_keeps_both": "give-after-rollover",
    "log_keeps_both": "fill-then-hammer-log",
    "next_id_near_boundary": "clock-far-ahead",
    "generation_checked": "reset-apart",
    "asks_early": "no-false-denial",
    "richest_first": "richest-first",
    "silence_after_empty": "asked-in-vain",
    "seldom_in_vain": "hot-and-cold-costly",
    "gives_half": "donor-keeps-half",
    "raise_mints_nothing": "lender-drained",
    "borrower_drops": "loans-end",
    "lender_waits": "loans-end",
    "tokens_move_along": "tokens-lent",
    "small_loans_refused": "wavering-demand",
    "newest_cell_wins": "shared-everything-twice",
    "silent_keep_their_share": "shared-one-link-cut",
    "incarnations_summed": "shared-lost-and-used-again",
    "cells_handed_back": "shared-store-lost",
    "mark_outlives_sending": "shared-last-touch-lost",
    "ack_clears_its_version": "shared-last-touch-lost",
    "marks_in_store": "shared-touched-elsewhere",
    "large_news_at_once": "shared-near-the-limit",
}
WORLDS = 3
BY_UNIT_TEST = {"heard_means_complete"}


def test_every_rule_has_its_counterexample():
    assert set(BROKEN_BY) | BY_UNIT_TEST == set(RULE_NAMES)


@pytest.mark.parametrize("rule", BROKEN_BY)
def test_switching_a_rule_off_breaks_a_promise(rule: str):
    """Chance decides whether the mistake shows: in one of a few worlds that keep their promises with the rule on."""
    found = scenario(BROKEN_BY[rule])
    seeds = range(found.seed, found.seed + WORLDS)
    assert any(run(found, seed, replace(ALL_RULES, **{rule: False})).violations for seed in seeds)


@pytest.mark.parametrize("name", sorted(set(BROKEN_BY.values())))
def test_with_all_rules_these_worlds_keep_their_promises(name: str):
    found = scenario(name)
    assert [run(found, seed).violations for seed in range(found.seed, found.seed + WORLDS)] == [()] * WORLDS


@pytest.mark.parametrize("is_on", [True, False])
def test_a_sign_of_life_is_not_news(is_on: bool):
    """A heartbeat says how far the news go: as of the change that a peer was not told yet, unless the rule is off."""
    rules = replace(ALL_RULES, heard_means_complete=is_on)
    teller = Teller("east", 0, ["west"], DEFAULT_TIMING, rules, resend_us=400_000)
    waiting = Marked("counter", 0, ((("east", 1, 7), Cell(3)),), since_us=10_000_000, is_pressing=False)
    told = teller.tell("west", 1, [waiting], 10_100_000)
    assert told is not None
    assert told.news == ()
    assert told.complete_us == (10_000_000 if is_on else 10_100_000)
