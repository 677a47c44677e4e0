"""Whom to ask for rights, how often in vain, and what is known of when nobody can be asked."""

from data_plane.rights.asking import PATIENCE_US, Asker
from data_plane.store.rights_messages import Ask, Gift, Give

NAME, ID, PEERS = ("{acme}1", 0), 7, ("eu-west", "ap-south")
SHARES = dict.fromkeys(PEERS, 20)
REFILL_US = 60_000_000
ENDS_US = 600_000_000
RTT_US = 5_000


def ask_of(now_us):
    return Ask(NAME[0], 0, 0, ID, "us-east", 1, 0, Gift(0, 0), 0, 0, now_us)


def answer_of(peer, asked_us, have=20, *, is_empty=True):
    return Give(NAME[0], 0, ID, peer, 1, 1, Gift(0, 0), have, is_empty, asked_us, asked_us + RTT_US)


def asked_in_vain(asker, from_us, for_us, every_us=50_000, refill_us=REFILL_US):
    """Ask whenever it is time to, every answer empty; when that was, and the rests in between."""
    asked, rests = [], []
    for now_us in range(from_us, from_us + for_us, every_us):
        peer = asker.whom(NAME, ID, SHARES, 1, now_us)
        if peer is None:
            rests.append((now_us, asker.rest(NAME, ID, ENDS_US, now_us)))
            continue
        asked.append(now_us)
        asker.asked(NAME, ask_of(now_us), peer, now_us)
        asker.answered(NAME, answer_of(peer, now_us), 0, now_us + RTT_US, refill_us=refill_us)
    return asked, rests


def test_a_bucket_that_nobody_lends_to_is_asked_for_less_and_less_often():
    asked, rests = asked_in_vain(Asker(PEERS), 1_000_000, 180_000_000)
    # each of two peers after 1, 2, 4, ... 60 s, where it was every second before
    assert len(asked) <= 2 * 9
    assert asked[-1] - asked[-3] >= 30_000_000
    assert all(rest.hopeless for _, rest in rests)
    assert all(now_us < rest.until_us <= now_us + REFILL_US + RTT_US for now_us, rest in rests)


def test_a_bucket_that_fills_quickly_is_asked_for_every_second():
    asked, _ = asked_in_vain(Asker(PEERS), 1_000_000, 20_000_000, refill_us=100_000)
    assert 2 * 18 <= len(asked) <= 2 * 21


def test_a_peer_that_lends_again_is_asked_at_once_the_next_time():
    asker = Asker(("eu-west",))
    asked_in_vain(asker, 1_000_000, 30_000_000)
    asker.asked(NAME, ask_of(40_000_000), "eu-west", 40_000_000)
    asker.answered(NAME, answer_of("eu-west", 40_000_000, is_empty=False), 3, 40_005_000, refill_us=REFILL_US)
    assert asker.whom(NAME, ID, SHARES, 1, 40_010_000) == "eu-west"


def test_in_a_window_nobody_is_asked_who_has_said_that_nothing_is_left():
    asker = Asker(PEERS)
    for peer, gained in (("eu-west", 4), ("ap-south", 0)):
        asker.asked(NAME, ask_of(1_000_000), peer, 1_000_000)
        asker.answered(NAME, answer_of(peer, 1_000_000, 0, is_empty=not gained), gained, 1_005_000)
    assert asker.whom(NAME, ID, SHARES, 1, 1_010_000) is None
    assert asker.rest(NAME, ID, ENDS_US, 1_010_000) == (ENDS_US, True)


def test_a_peer_that_was_only_slow_leaves_hope():
    asker = Asker(("eu-west",))
    asker.answered(NAME, answer_of("eu-west", 1_000_000), 0, 1_005_000)  # how long a round trip takes
    asker.asked(NAME, ask_of(2_000_000), "eu-west", 2_000_000)
    late_us = 2_000_000 + 3 * RTT_US
    assert asker.whom(NAME, ID, SHARES, 1, late_us) is None
    rest = asker.rest(NAME, ID, ENDS_US, late_us)
    assert late_us < rest.until_us < late_us + PATIENCE_US
    assert not rest.hopeless
