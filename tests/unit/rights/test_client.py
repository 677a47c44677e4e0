"""Which peer to ask for rights, how often in vain, and until when nobody can be asked."""

from data_plane.rights.client import PASSED_OVER_US, RightsAnswer, RightsClient

KEY, ID, PEERS = b"{acme}1", 7, ("eu-west", "ap-south")
SHARES = dict.fromkeys(PEERS, 20)
REFILL_US = 60_000_000
ENDS_US = 600_000_000
RTT_US = 5_000


def answer_of(peer, asked_us, have=20, *, is_empty=True):
    return RightsAnswer(peer, ID, have, is_empty, asked_us)


def asked_in_vain(client, from_us, for_us, every_us=50_000, refill_us=REFILL_US):
    """Ask whenever it is time to, every answer empty; when that was, and the back_offs in between."""
    asked, back_offs = [], []
    for now_us in range(from_us, from_us + for_us, every_us):
        peer = client.choose_peer(KEY, ID, SHARES, 1, now_us)
        if peer is None:
            back_offs.append((now_us, client.back_off(KEY, ID, ENDS_US, now_us)))
            continue
        asked.append(now_us)
        client.note_asked(KEY, ID, peer, now_us)
        client.note_answer(KEY, answer_of(peer, now_us), 0, now_us + RTT_US, refill_us=refill_us)
    return asked, back_offs


def test_a_bucket_that_nobody_lends_to_is_asked_for_less_and_less_often():
    asked, back_offs = asked_in_vain(RightsClient(PEERS), 1_000_000, 180_000_000)
    # each of two peers after 1, 2, 4, ... 60 s, where it was every second before
    assert len(asked) <= 2 * 9
    assert asked[-1] - asked[-3] >= 30_000_000
    assert all(back_off.hopeless for _, back_off in back_offs)
    assert all(now_us < back_off.until_us <= now_us + REFILL_US + RTT_US for now_us, back_off in back_offs)


def test_a_bucket_that_fills_quickly_is_asked_for_every_second():
    asked, _ = asked_in_vain(RightsClient(PEERS), 1_000_000, 20_000_000, refill_us=100_000)
    assert 2 * 18 <= len(asked) <= 2 * 21


def test_a_peer_that_lends_again_is_asked_at_once_the_next_time():
    client = RightsClient(("eu-west",))
    asked_in_vain(client, 1_000_000, 30_000_000)
    client.note_asked(KEY, ID, "eu-west", 40_000_000)
    client.note_answer(KEY, answer_of("eu-west", 40_000_000, is_empty=False), 3, 40_005_000, refill_us=REFILL_US)
    assert client.choose_peer(KEY, ID, SHARES, 1, 40_010_000) == "eu-west"


def test_in_a_window_nobody_is_asked_who_has_said_that_nothing_is_left():
    client = RightsClient(PEERS)
    for peer, gained in (("eu-west", 4), ("ap-south", 0)):
        client.note_asked(KEY, ID, peer, 1_000_000)
        client.note_answer(KEY, answer_of(peer, 1_000_000, 0, is_empty=not gained), gained, 1_005_000)
    assert client.choose_peer(KEY, ID, SHARES, 1, 1_010_000) is None
    assert client.back_off(KEY, ID, ENDS_US, 1_010_000) == (ENDS_US, True)


def test_a_peer_that_was_only_slow_leaves_hope():
    client = RightsClient(("eu-west",))
    client.note_answer(KEY, answer_of("eu-west", 1_000_000), 0, 1_005_000)  # how long a round trip takes
    client.note_asked(KEY, ID, "eu-west", 2_000_000)
    late_us = 2_000_000 + 3 * RTT_US
    assert client.choose_peer(KEY, ID, SHARES, 1, late_us) is None
    back_off = client.back_off(KEY, ID, ENDS_US, late_us)
    assert late_us < back_off.until_us < late_us + PASSED_OVER_US
    assert not back_off.hopeless
