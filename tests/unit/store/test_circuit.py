"""The circuit opens by rate, not by one slow answer, and closes by one probe. Time is an argument: nothing sleeps."""

from data_plane.store.redis.circuit import Backoff, Circuit


def make_circuit(random: float = 1.0) -> Circuit:
    """Window 100 ms, at least 5 failures; waits of 20, 40, 80 ... at most 1,000 ms, times ``random``."""
    backoff = Backoff(base_s=0.02, cap_s=1.0, random=lambda: random)
    return Circuit(window_s=0.1, min_failures=5, backoff=backoff)


def open_circuit(circuit: Circuit, now: float) -> None:
    for _ in range(5):
        circuit.failed(now)
    assert circuit.state == "open"


def test_fewer_failures_than_the_least_never_open() -> None:
    circuit = make_circuit()
    for _ in range(4):
        circuit.failed(1.0)
    assert circuit.state == "closed"
    circuit.failed(1.0)
    assert circuit.state == "open"
    assert circuit.opened == 1


def test_failures_that_are_less_than_half_never_open() -> None:
    circuit = make_circuit()
    for _ in range(11):
        circuit.succeeded(1.0)
    for _ in range(10):
        circuit.failed(1.0)
    assert circuit.state == "closed"
    circuit.failed(1.0)
    assert circuit.state == "open"


def test_failures_older_than_the_window_are_forgotten() -> None:
    circuit = make_circuit()
    for second in range(1, 20):
        circuit.succeeded(second * 0.11)
        circuit.failed(second * 0.11)
        circuit.failed(second * 0.11)
    assert circuit.state == "closed"


def test_failures_in_a_row_open_however_far_apart_they_are() -> None:
    circuit = make_circuit()
    for second in range(4):
        circuit.failed(second)
    assert circuit.state == "closed"
    circuit.failed(4)
    assert circuit.state == "open"


def test_failures_on_both_sides_of_the_half_window_count_together() -> None:
    circuit = make_circuit()
    for now in (1.0, 1.02, 1.04, 1.06, 1.08):
        circuit.failed(now)
    assert circuit.state == "open"


def test_while_open_nobody_probes_before_the_wait_is_over_and_then_one() -> None:
    circuit = make_circuit()
    open_circuit(circuit, 1.0)
    assert not circuit.admits_probe(1.019)
    assert circuit.admits_probe(1.02)
    assert circuit.state == "half_open"
    assert not circuit.admits_probe(1.03)


def test_a_probe_that_succeeds_closes_and_forgets_the_failures() -> None:
    circuit = make_circuit()
    open_circuit(circuit, 1.0)
    assert circuit.admits_probe(1.02)
    circuit.succeeded(1.021)
    assert circuit.state == "closed"
    for _ in range(4):
        circuit.failed(1.022)
    assert circuit.state == "closed"


def test_each_probe_that_fails_doubles_the_wait_up_to_the_cap() -> None:
    circuit = make_circuit()
    open_circuit(circuit, 0.0)
    now, waits = 0.0, []
    for _ in range(8):
        waits.append(round(circuit.retry_at - now, 6))
        now = circuit.retry_at
        assert circuit.admits_probe(now)
        circuit.failed(now)
    assert waits == [0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0, 1.0]
    assert circuit.opened == 1


def test_late_good_news_does_not_close_an_open_circuit() -> None:
    circuit = make_circuit()
    open_circuit(circuit, 1.0)
    circuit.succeeded(1.001)
    assert circuit.state == "open"


def test_a_lost_server_opens_at_once_and_a_new_connection_lets_the_next_probe() -> None:
    circuit = make_circuit()
    circuit.trip(1.0)
    assert not circuit.admits_probe(1.0)
    circuit.reachable(1.001)
    assert circuit.admits_probe(1.001)


def test_a_new_connection_releases_a_probe_that_was_lost_with_the_old_one() -> None:
    circuit = make_circuit()
    circuit.trip(1.0)
    assert circuit.admits_probe(1.5)
    circuit.reachable(1.6)
    assert circuit.admits_probe(1.6)


def test_jitter_is_full() -> None:
    waits = iter([0.0, 0.5, 1.0])
    backoff = Backoff(base_s=0.1, cap_s=10.0, random=lambda: next(waits))
    assert [round(backoff.next_s(), 6) for _ in range(3)] == [0.0, 0.1, 0.4]
    backoff.reset()
