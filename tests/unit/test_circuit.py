"""Circuits and retry budgets: a failing model is left alone, and retries stay a share of traffic."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shipworthy.model.circuit import (
    OPEN_AFTER_FAILURES,
    OPEN_FIRST_NS,
    OPEN_LONGEST_NS,
    RETRY_BALANCE_MAX,
    RETRY_FLOOR_PER_S,
    RETRY_SHARE,
    SECOND_NS,
    Circuit,
    RetryBudget,
    State,
)


def opened(at_ns: int = 0) -> Circuit:
    circuit = Circuit()
    for _ in range(OPEN_AFTER_FAILURES):
        assert circuit.begin(at_ns)
        circuit.failed(at_ns)
    assert circuit.state is State.OPEN
    return circuit


def test_opens_at_half_of_at_least_five() -> None:
    circuit = Circuit()
    for _ in range(OPEN_AFTER_FAILURES + 1):
        circuit.succeeded(0)
    for _ in range(OPEN_AFTER_FAILURES):
        assert not circuit.failed(0)
    assert circuit.failed(0), "the sixth failure makes half"


def test_old_failures_do_not_count() -> None:
    circuit = Circuit()
    for second in range(0, 400, 40):
        assert not circuit.failed(second * SECOND_NS)


def test_half_open_lets_one_probe_through_and_two_close_it() -> None:
    circuit = opened()
    assert not circuit.begin(OPEN_FIRST_NS - 1)
    assert circuit.begin(OPEN_FIRST_NS)
    assert not circuit.begin(OPEN_FIRST_NS), "one probe at a time"
    assert not circuit.succeeded(OPEN_FIRST_NS)
    assert circuit.begin(OPEN_FIRST_NS)
    assert circuit.succeeded(OPEN_FIRST_NS)
    assert circuit.state is State.CLOSED


def test_a_failing_probe_doubles_the_wait_up_to_a_bound() -> None:
    circuit, now_ns, waits = opened(), 0, []
    for _ in range(8):
        wait_ns = int(circuit.retry_after_s(now_ns) * SECOND_NS)
        waits.append(wait_ns)
        now_ns += wait_ns
        assert circuit.begin(now_ns)
        circuit.failed(now_ns)
    assert waits[0] == OPEN_FIRST_NS
    assert waits[1] == 2 * OPEN_FIRST_NS
    assert waits[-1] == OPEN_LONGEST_NS


def test_a_probe_that_is_given_back_frees_its_place() -> None:
    circuit = opened()
    assert circuit.begin(OPEN_FIRST_NS)
    circuit.released()
    assert circuit.begin(OPEN_FIRST_NS)


def test_what_was_sent_before_the_circuit_opened_is_no_probe() -> None:
    """A provider that dies under load fails many requests at once: that is one reason to wait, not many."""
    circuit = opened()
    for _ in range(20):
        assert not circuit.failed(1)
        assert not circuit.succeeded(1)
    assert circuit.state is State.OPEN
    assert circuit.retry_after_s(0) == OPEN_FIRST_NS / SECOND_NS
    assert not circuit.failed(0, retry_after_s=30), "what the provider asks for counts all the same"
    assert circuit.retry_after_s(0) == 30


def test_retry_after_opens_at_once_and_is_bounded() -> None:
    circuit = Circuit()
    assert circuit.failed(0, retry_after_s=7)
    assert circuit.retry_after_s(0) == 7
    endless = Circuit()
    endless.failed(0, retry_after_s=1e9)
    assert endless.retry_after_s(0) == OPEN_LONGEST_NS / SECOND_NS


@given(st.lists(st.sampled_from(["earn", "spend"]), max_size=2_000), st.integers(0, 10))
def test_retries_are_a_share_of_traffic(acts: list[str], seconds: int) -> None:
    """Promise: whatever happens, retries ≤ 0.2 × requests + the floor of the time that passed."""
    budget = RetryBudget(0)
    earned = retried = 0
    for place, act in enumerate(acts):
        now_ns = place * seconds * SECOND_NS // max(1, len(acts))
        if act == "earn":
            budget.earn()
            earned += 1
        else:
            retried += budget.spend(now_ns)
    assert retried <= RETRY_SHARE * earned + RETRY_FLOOR_PER_S * (seconds + 1)
    assert retried <= RETRY_BALANCE_MAX + RETRY_SHARE * earned + RETRY_FLOOR_PER_S * seconds
