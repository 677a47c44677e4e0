"""Wrong credentials are bounded by address, in bounded memory."""

from control_plane.access import throttle
from control_plane.access.throttle import MAX_ADDRESSES, WINDOW_S, FailureThrottle


def test_an_address_waits_for_the_rest_of_its_minute_after_too_many_failures() -> None:
    failures = FailureThrottle(3)
    for second in range(3):
        assert failures.blocked_for_s("a", second) == 0
        failures.failed("a", second)
    assert failures.blocked_for_s("a", 10) == WINDOW_S - 10
    assert failures.blocked_for_s("b", 10) == 0
    assert failures.blocked_for_s("a", WINDOW_S) == 0
    failures.failed("a", WINDOW_S + 1)
    assert failures.blocked_for_s("a", WINDOW_S + 2) == 0


def test_memory_is_bounded() -> None:
    failures = FailureThrottle(1)
    for number in range(MAX_ADDRESSES + 10):
        failures.failed(str(number), 0)
    assert failures.blocked_for_s("0", 1) == 0
    assert failures.blocked_for_s(str(MAX_ADDRESSES + 9), 1) == throttle.WINDOW_S - 1
