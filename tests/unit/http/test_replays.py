from data_plane.http.answers import Answer
from data_plane.http.replays import REMEMBER_US, Replays

NAME = ("edge", b"id", 1)


def test_a_request_is_repeated_for_ten_seconds_and_not_for_as_long_as_a_clock_is_set_back():
    replays, told = Replays(), []
    for number, (now_us, is_new) in enumerate(
        [(10**15, True), (10**15 + REMEMBER_US - 1, False), (10**15 + REMEMBER_US, True), (10**15 - 10**9, True)]
    ):
        reply = replays.first_time(NAME, told.append, now_us)
        assert (reply is not None) == is_new
        if reply is not None:
            reply(Answer(200, b"", b"%d" % number))
    assert [answer.body for answer in told] == [b"0", b"0", b"2", b"3"]
