"""A lease in its worker's memory: never more is spent than was granted, and what is reported is what was used."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from shipworthy.kit.builders import a_charge, a_claim, an_estimate
from shipworthy.model.lease import LOST, Purse, Share, Turned
from shipworthy.model.ledger import Charge, Claim, Hold, Standing
from shipworthy.model.op import uuid7

NOTHING = (0, 0, 0, 0)
UNTIL_NS = 100
ROOM = Standing(limit_requests=60, remaining_requests=10, limit_tokens=1_000, remaining_tokens=100)
BUDGET = a_claim("tenant", 10_000)
LIMITS = a_claim("tenant", requests=60, tokens=1_000, concurrent=10)
BOTH = a_claim("tenant", 10_000, requests=60, tokens=1_000, concurrent=10)


def a_purse(claim: Claim = BOTH, nano: int = 1_000, requests: int = 10, tokens: int = 100, places: int = 5) -> Purse:
    purse = Purse(UUID(int=7), [claim])
    purse.grant(Share(nano, requests, tokens, places), UNTIL_NS, ROOM)
    return purse


def a_hold(amount_nano: int = 100, tokens: int = 10) -> Hold:
    return Hold(uuid7(0), "northwind", an_estimate(amount_nano, tokens), (), Standing())


def drawn(purse: Purse, amount_nano: int = 100, tokens: int = 10) -> Hold:
    hold = a_hold(amount_nano, tokens)
    assert purse.draw(hold, 0)
    return hold


def settle(purse: Purse, hold: Hold, amount_nano: int, tokens: int = 10, *, counts: bool = True) -> None:
    purse.settle(hold, a_charge(hold, amount_nano, tokens), counts)


def left(purse: Purse) -> tuple[int, int, int, int]:
    return purse.nano, purse.requests, purse.tokens, purse.places


def turned(purse: Purse, second: int = 50, *, gone: bool = False) -> None:
    purse.turned(Turned(purse.id, gone, second, ROOM), UNTIL_NS + 100)


def test_a_draw_takes_money_a_request_tokens_and_a_place() -> None:
    purse = a_purse()
    hold = drawn(purse)
    assert left(purse) == (900, 9, 90, 4)
    assert (hold.purse, hold.lease_id, hold.placed) == (purse, purse.id, True)
    assert (purse.in_flight, purse.drawn) == (1, 1)


def test_nothing_is_drawn_beyond_what_is_there() -> None:
    """Neither money nor requests, tokens, places; and what is refused takes nothing."""
    for purse, hold in (
        (a_purse(nano=99), a_hold()),
        (a_purse(requests=0), a_hold()),
        (a_purse(tokens=9), a_hold()),
        (a_purse(places=0), a_hold()),
    ):
        before = left(purse)
        assert not purse.draw(hold, 0)
        assert (left(purse), purse.in_flight, hold.purse) == (before, 0, None)


def test_what_no_level_limits_is_not_asked_for() -> None:
    purse = a_purse(BUDGET, requests=0, tokens=0, places=0)
    drawn(purse, 1_000, tokens=10**9)
    paced = a_purse(LIMITS, nano=0)
    drawn(paced, 10**12)
    assert purse.wish(8, 100, 10, 0) == Share(800, 0, 0, 0)
    assert a_purse(LIMITS, 0, 0, 0, 0).wish(8, 100, 10, 2) == Share(0, 8, 80, 3)


def test_a_wish_is_for_what_is_missing() -> None:
    purse = a_purse()
    drawn(purse)
    assert purse.wish(20, 100, 10, waiting=3) == Share(1_100, 11, 110, 1)
    assert purse.wish(1, 100, 10, waiting=0) == Share(*NOTHING)


def test_a_lease_is_not_spent_past_its_time_or_once_it_is_retired() -> None:
    purse = a_purse()
    assert not purse.draw(a_hold(), UNTIL_NS)
    assert purse.draw(a_hold(), UNTIL_NS - 1)
    purse.retired = True
    assert not purse.draw(a_hold(), 0)
    assert not purse.stretch(1, 0)


def test_a_stretch_takes_more_money_or_none() -> None:
    purse = a_purse()
    drawn(purse)
    assert purse.stretch(900, 0)
    assert not purse.stretch(1, 0)
    assert not a_purse().stretch(1, UNTIL_NS)
    assert a_purse(LIMITS, nano=0).stretch(10**12, 0)
    assert purse.nano == 0


def test_a_trim_comes_back_at_once() -> None:
    purse = a_purse()
    purse.trim(drawn(purse), 30)
    assert purse.nano == 970


def test_an_exchange_that_ended_leaves_its_place_once() -> None:
    purse = a_purse()
    hold = drawn(purse)
    purse.leave(hold)
    purse.leave(hold)
    settle(purse, hold, 100)
    assert purse.places == 5


def test_what_was_not_used_can_be_spent_again() -> None:
    purse = a_purse()
    settle(purse, drawn(purse), 40, tokens=3)
    assert (left(purse), purse.in_flight) == ((960, 9, 97, 5), 0)
    assert purse.turn(everything=True).used_tokens == 3


def test_an_overrun_is_owed_out_of_what_is_left() -> None:
    """It was charged beyond the lease: as much goes back as there is."""
    purse = a_purse()
    settle(purse, drawn(purse), 150)
    assert purse.nano == 850
    drawn(purse)
    assert purse.turn(everything=False).back_nano == 50
    short = a_purse(nano=120)
    settle(short, drawn(short), 500)
    drawn(short, 0)
    assert short.nano == 0
    assert short.turn(everything=False).back_nano == 20


def test_what_was_undone_leaves_no_trace() -> None:
    purse = a_purse()
    purse.undo(drawn(purse))
    turn = purse.turn(everything=False)
    assert (left(purse), turn.used_requests, turn.used_tokens) == ((1_000, 10, 100, 5), 0, 0)


def test_what_nobody_will_record_stays_set_aside() -> None:
    """Its intent speaks for it: the money is neither spent again nor given back."""
    purse = a_purse()
    hold = drawn(purse)
    purse.abandon(hold)
    assert (left(purse), purse.in_flight, hold.purse) == ((900, 9, 90, 5), 0, None)
    assert purse.turn(everything=True).back_nano == 900


def test_a_turn_reports_what_was_used_and_gives_back_what_was_not_needed() -> None:
    """A busy lease keeps as much as it used; what was left over all the time beyond that goes back."""
    purse = a_purse()
    for _ in range(2):
        settle(purse, drawn(purse), 100)
    first = purse.turn(everything=False)
    assert (first.used_requests, first.used_tokens, first.ended) == (2, 20, False)
    assert first.back_nano == first.back_requests == 0, "nobody knows yet what it needs"
    turned(purse)
    settle(purse, drawn(purse), 100)
    second = purse.turn(everything=False)
    assert (second.back_nano, second.back_requests, second.back_tokens) == (600, 6, 60)
    assert left(purse) == (100, 1, 10, 2)


def test_a_turn_gives_back_everything_of_an_idle_or_recalled_lease() -> None:
    idle = a_purse()
    turn = idle.turn(everything=False)
    assert (turn.back_nano, turn.back_requests, turn.back_tokens, turn.back_places) == (1_000, 10, 100, 5)
    assert turn.ended
    assert idle.retired
    recalled = a_purse()
    drawn(recalled)
    turn = recalled.turn(everything=True)
    assert (turn.back_nano, turn.ended) == (900, False)
    assert left(recalled) == NOTHING


def test_a_lease_ends_when_nothing_of_it_is_in_use() -> None:
    """Neither a request nor a question that may still add to it."""
    purse = a_purse()
    hold = drawn(purse)
    purse.retired = True
    assert not purse.turn(everything=False).ended
    settle(purse, hold, 1)
    purse.asked += 1
    assert not purse.turn(everything=False).ended
    purse.asked -= 1
    assert purse.turn(everything=False).ended


def test_more_tokens_than_estimated_are_a_debt_until_they_are_reported() -> None:
    purse = a_purse()
    settle(purse, drawn(purse), 100, tokens=150)
    assert purse.tokens == -50
    assert not purse.draw(a_hold(), 0)
    assert purse.turn(everything=False).used_tokens == 150
    assert purse.tokens == 0


def test_corrections_go_to_the_slot_that_the_store_named() -> None:
    """Less than estimated, or a request that does not count, is taken back where it was counted."""
    purse = a_purse()
    holds = [drawn(purse) for _ in range(3)]
    purse.turn(everything=False)
    turned(purse, second=50)
    settle(purse, holds[0], 1, tokens=4)
    settle(purse, holds[1], 0, tokens=0, counts=False)
    settle(purse, holds[2], 1, tokens=25)
    turn = purse.turn(everything=False)
    assert turn.over == ((50, 1, 16),)
    assert (turn.used_requests, turn.used_tokens) == (0, 15), "more than estimated counts now"
    turned(purse)
    assert purse.turn(everything=False).over == ()


def test_a_correction_while_the_turn_is_under_way_waits_for_its_slot() -> None:
    purse = a_purse()
    hold = drawn(purse)
    purse.turn(everything=False)
    settle(purse, hold, 0, tokens=0, counts=False)
    turned(purse, second=77)
    drawn(purse)
    assert purse.turn(everything=False).over == ((77, 1, 10),)


def test_a_turn_that_nobody_answered_is_not_corrected() -> None:
    """Nobody knows in which slot its requests count, if at all; the lease is spent no more."""
    purse = a_purse()
    early, late = drawn(purse), drawn(purse)
    purse.turn(everything=False)
    settle(purse, early, 0, tokens=0, counts=False)
    purse.unheard()
    assert (purse.retired, purse.ended, late.second) == (True, False, LOST)
    settle(purse, late, 0, tokens=30, counts=False)
    turn = purse.turn(everything=False)
    assert turn.over == ()
    assert turn.used_tokens == 20
    assert turn.ended


def test_a_lease_that_is_gone_is_spent_no_more() -> None:
    purse = a_purse()
    hold = drawn(purse)
    purse.turn(everything=False)
    turned(purse, gone=True)
    assert (purse.nano, purse.ended) == (0, True)
    settle(purse, hold, 10)
    assert not purse.draw(a_hold(), 0)


def test_an_answered_turn_renews_the_lease() -> None:
    purse = a_purse()
    drawn(purse)
    purse.turn(everything=False)
    turned(purse)
    assert purse.draw(a_hold(), UNTIL_NS + 50)
    assert not purse.draw(a_hold(), UNTIL_NS + 100)


def test_it_is_scarce_at_half_of_what_was_granted() -> None:
    purse = a_purse(BUDGET)
    for _ in range(4):
        drawn(purse)
    assert not purse.scarce
    drawn(purse)
    assert purse.scarce
    assert a_purse(LIMITS, requests=1).scarce is False
    assert a_purse(LIMITS, requests=0).scarce


def test_what_stands_is_what_the_store_has_and_what_is_here() -> None:
    purse = a_purse()
    drawn(purse)
    standing = purse.stands()
    assert (standing.limit_requests, standing.remaining_requests, standing.remaining_tokens) == (60, 19, 190)
    assert a_purse(BUDGET).stands() is ROOM


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["draw", "settle", "settle", "trim", "stretch", "turn", "lost", "recall", "undo", "abandon"]),
        st.integers(0, 300),
        st.integers(0, 40),
    ),
    max_size=40,
)


@given(steps=STEPS)
def test_a_purse_and_the_store_agree_whatever_happens(steps: list[tuple[str, int, int]]) -> None:
    """``granted − given back − charged to the lease`` is what is here, held, or abandoned."""
    purse, kept_nano, abandoned_nano, holds = a_purse(), 1_000, 0, []
    for step, amount, tokens in steps:
        hold = holds[amount % len(holds)] if holds else None
        if step == "draw":
            hold = a_hold(amount, tokens)
            if purse.draw(hold, 0):
                holds.append(hold)
        elif step in ("turn", "lost", "recall"):
            kept_nano -= purse.turn(everything=step == "recall").back_nano
            purse.unheard() if step == "lost" else turned(purse)
        elif hold is not None and step == "trim" and amount < hold.estimate.amount_nano:
            purse.trim(hold, amount)
            hold.estimate = an_estimate(amount, hold.estimate.tokens)
        elif hold is not None and step == "stretch" and purse.stretch(amount, 0):
            hold.estimate = an_estimate(hold.estimate.amount_nano + amount, hold.estimate.tokens)
        elif hold is not None and step in ("settle", "undo", "abandon"):
            holds.remove(hold)
            if step == "settle":
                kept_nano -= min(amount, hold.estimate.amount_nano)
                purse.settle(hold, Charge((), amount, 0, tokens), counts=bool(tokens))
            elif step == "undo":
                purse.undo(hold)
            else:
                abandoned_nano += hold.estimate.amount_nano
                purse.abandon(hold)
        held_nano = sum(hold.estimate.amount_nano for hold in holds)
        assert purse.nano + purse._owed_nano + held_nano + abandoned_nano == kept_nano
        assert purse.nano >= 0
        assert purse.in_flight == len(holds)
        assert 0 <= purse.places <= 5
        assert purse.requests >= 0
