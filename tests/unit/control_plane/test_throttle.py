"""Wrong credentials are bounded by address and beginning, in bounded memory; right ones never wait for others."""

import asyncio

from control_plane.access import throttle
from control_plane.access.throttle import (
    LOOK_UPS_AT_ONCE,
    MAX_ATTEMPTERS,
    MAX_WAITING,
    WINDOW_S,
    Attempter,
    FailureCounter,
    FailureThrottle,
    NarrowGate,
)


def test_an_attempter_waits_for_the_rest_of_its_minute_after_too_many_failures() -> None:
    failures = FailureThrottle(3)
    guesser = Attempter.of("a", "tga_1234 and more")
    for second in range(3):
        assert failures.blocked_for_s(guesser, second) == 0
        failures.failed(guesser, second)
    assert failures.blocked_for_s(guesser, 10) == WINDOW_S - 10
    assert failures.blocked_for_s(Attempter.of("b", "tga_1234 and more"), 10) == 0
    assert failures.blocked_for_s(Attempter.of("a", "tga_5678"), 10) == 0
    assert failures.blocked_for_s(guesser, WINDOW_S) == 0
    failures.failed(guesser, WINDOW_S + 1)
    assert failures.blocked_for_s(guesser, WINDOW_S + 2) == 0


def test_who_has_a_network_of_ipv6_addresses_is_one_attempter() -> None:
    failures = FailureThrottle(3)
    for host in range(3):
        failures.failed(Attempter.of(f"2001:db8:0:1::{host}", "tga_1234"), 0)
    assert failures.blocked_for_s(Attempter.of("2001:db8:0:1:ffff::9%eth0", "tga_1234"), 0)
    assert not failures.blocked_for_s(Attempter.of("2001:db8:0:2::1", "tga_1234"), 0)
    assert Attempter.of("::ffff:192.0.2.1", "") == Attempter.of("192.0.2.1", "")


def test_memory_is_bounded() -> None:
    failures: FailureCounter[str] = FailureCounter(1)
    for number in range(MAX_ATTEMPTERS + 10):
        failures.failed(str(number), 0)
    assert failures.blocked_for_s("0", 1) == 0
    assert failures.blocked_for_s(str(MAX_ATTEMPTERS + 9), 1) == throttle.WINDOW_S - 1


async def test_the_gate_is_narrow_and_its_queue_bounded() -> None:
    gate = NarrowGate(delay_s=0)
    inside = most = 0
    leave = asyncio.Event()

    async def pass_through() -> None:
        nonlocal inside, most
        async with gate.turn():
            inside += 1
            most = max(most, inside)
            await leave.wait()
            inside -= 1

    tasks = [asyncio.create_task(pass_through()) for _ in range(MAX_WAITING)]
    while inside < LOOK_UPS_AT_ONCE:
        await asyncio.sleep(0)
    assert gate.full
    leave.set()
    await asyncio.gather(*tasks)
    assert most == LOOK_UPS_AT_ONCE
    assert not gate.full
