"""Money is exact: what every Ledger, with its Recorder and Sweeper, must keep. Run over memory and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from shipworthy.control.sweep import expire, sweep
from shipworthy.kit.builders import a_charge, a_claim, a_row, a_settled_row, an_estimate, an_op
from shipworthy.kit.ledger import Figures
from shipworthy.model.errors import Refusal
from shipworthy.model.exchange import Bodies, Outcome
from shipworthy.model.ledger import Claim, Hold
from shipworthy.model.money import Basis
from shipworthy.model.observation import Failed, Lifecycle, Swept
from shipworthy.ports import Entry, Expired


@pytest.fixture
def tenant(tenant_name: Callable[[str], str]) -> str:
    return tenant_name("northwind")


def run(open_bench, scene: Callable[..., Awaitable[None]]) -> None:
    async def play() -> None:
        async with open_bench() as bench:
            await scene(bench)

    asyncio.run(play())


async def reserve(bench, tenant: str, claims: list[Claim], amount_nano: int = 100, tokens: int = 10) -> Hold:
    op = an_op()
    intent = msgspec.msgpack.encode(a_row(op, tenant, outcome=Outcome.FAILED))
    bench.ops[op.id] = op
    return await bench.ledger.reserve(op, tenant, claims, an_estimate(amount_nano, tokens), lambda: intent)


async def settle(bench, hold: Hold, amount_nano: int, tokens: int = 10, **changes: object) -> None:
    op = bench.ops[hold.id]
    charge = a_charge(hold, amount_nano, tokens)
    await bench.recorder.record(Entry(a_settled_row(op, hold, charge, **changes), None, hold, charge))


def test_money_moves_from_free_to_held_to_charged(open_bench, tenant) -> None:
    """`charged + held + leased + suspended + free = cap` at every step."""
    claim = a_claim("tenant", 1_000)

    async def scene(bench) -> None:
        hold = await reserve(bench, tenant, [claim], 300)
        assert await bench.figures(tenant, claim) == Figures(1_000, held_nano=300)
        await settle(bench, hold, 120)
        assert await bench.figures(tenant, claim) == Figures(1_000, charged_nano=120)

    run(open_bench, scene)


def test_every_level_or_none(open_bench, tenant) -> None:
    """A level that refuses leaves no trace at the others."""
    wide, narrow = a_claim("team=a", 1_000, requests=10), a_claim("tenant", 50)

    async def scene(bench) -> None:
        with pytest.raises(Refusal) as refused:
            await reserve(bench, tenant, [wide, narrow], 100)
        assert refused.value.code == "reserve.budget_exhausted"
        assert refused.value.facts == {"level": "tenant", "period": "month"}
        assert refused.value.retryable is False
        assert refused.value.retry_after_s > 86_400
        assert await bench.figures(tenant, wide) == Figures(1_000)
        hold = await reserve(bench, tenant, [wide], 100)
        assert hold.standing.remaining_requests == 9

    run(open_bench, scene)


def test_nobody_is_admitted_beyond_a_cap(open_bench, tenant) -> None:
    """40 callers at once, three levels, room for 12 at the narrowest: 12 get it."""
    claims = [a_claim("team=a", 2_000), a_claim("team=a/use_case=b", 1_250), a_claim("tenant", 5_000)]

    async def scene(bench) -> None:
        answers = await asyncio.gather(*(reserve(bench, tenant, claims) for _ in range(40)), return_exceptions=True)
        admitted = [answer for answer in answers if isinstance(answer, Hold)]
        refusals = {answer.code for answer in answers if isinstance(answer, Refusal)}
        assert len(admitted) == 12
        assert refusals == {"reserve.budget_exhausted"}
        for claim in claims:
            assert (await bench.figures(tenant, claim)).held_nano == 1_200

    run(open_bench, scene)


def test_a_lowered_cap_applies_at_once(open_bench, tenant) -> None:
    async def scene(bench) -> None:
        hold = await reserve(bench, tenant, [a_claim("tenant", 1_000)], 600)
        await settle(bench, hold, 600)
        with pytest.raises(Refusal):
            await reserve(bench, tenant, [a_claim("tenant", 650)], 100)
        await reserve(bench, tenant, [a_claim("tenant", 700)], 100)

    run(open_bench, scene)


def test_an_overrun_is_charged_in_full_and_blocks_the_next(open_bench, tenant) -> None:
    claim = a_claim("tenant", 1_000)

    async def scene(bench) -> None:
        hold = await reserve(bench, tenant, [claim], 900)
        await settle(bench, hold, 1_500)
        assert (await bench.figures(tenant, claim)).charged_nano == 1_500
        with pytest.raises(Refusal):
            await reserve(bench, tenant, [claim], 1)
        await reserve(bench, tenant, [claim], 0)  # what is free is served all the same

    run(open_bench, scene)


def test_a_settlement_that_is_said_twice_counts_once(open_bench, tenant) -> None:
    """An answer that was lost on the way is no reason to charge again."""
    claim = a_claim("tenant", 1_000, requests=5, tokens=100, concurrent=5)

    async def scene(bench) -> None:
        hold = await reserve(bench, tenant, [claim], 100)
        await settle(bench, hold, 70)
        await settle(bench, hold, 70)
        assert await bench.figures(tenant, claim) == Figures(1_000, charged_nano=70)
        assert len(await bench.rows(tenant)) == 1

    run(open_bench, scene)


def test_a_budget_waits_for_holds_that_may_come_back(open_bench, tenant) -> None:
    """Only a hold stands in the way; it is settled for less within the bound, and the caller is admitted."""
    claim = a_claim("tenant", 1_000)

    async def scene(bench) -> None:
        hold = await reserve(bench, tenant, [claim], 950)
        waiting = asyncio.create_task(reserve(bench, tenant, [claim], 500))
        await asyncio.sleep(0.05)
        await settle(bench, hold, 10)
        assert isinstance(await waiting, Hold)

    run(open_bench, scene)


def test_raising_a_hold_keeps_the_cap(open_bench, tenant) -> None:
    claims = [a_claim("team=a", 1_000), a_claim("tenant", 5_000)]

    async def scene(bench) -> None:
        hold = await reserve(bench, tenant, claims, 300)
        raised = await bench.ledger.raise_to(an_op(), hold, 800)
        assert raised.estimate.amount_nano == 800
        assert await bench.ledger.raise_to(an_op(), raised, 10) == raised
        with pytest.raises(Refusal) as refused:
            await bench.ledger.raise_to(an_op(), raised, 1_001)
        assert refused.value.code == "reserve.budget_exhausted"
        assert refused.value.facts["level"] == "team=a"
        assert (await bench.figures(tenant, claims[1])).held_nano == 800
        await settle(bench, raised, 800)
        assert await bench.figures(tenant, claims[0]) == Figures(1_000, charged_nano=800)

    run(open_bench, scene)


def test_requests_slide_over_a_minute(open_bench, tenant) -> None:
    """The sixth is told when to come back, and then there is room; never more than five in any 60 seconds."""
    claim = a_claim("tenant", requests=5)

    async def scene(bench) -> None:
        for _ in range(5):
            hold = await reserve(bench, tenant, [claim])
            bench.dial.turn(2)
        assert hold.standing.limit_requests == 5
        assert hold.standing.remaining_requests == 0
        with pytest.raises(Refusal) as refused:
            await reserve(bench, tenant, [claim])
        assert refused.value.code == "reserve.requests_limit"
        assert refused.value.retryable is None
        assert refused.value.retry_after_s == pytest.approx(
            50.75, abs=0.01
        )  # the first came 10 s ago: 60 to 61 s in all
        bench.dial.turn(refused.value.retry_after_s - 0.3)
        with pytest.raises(Refusal):
            await reserve(bench, tenant, [claim])
        bench.dial.turn(0.31)
        await reserve(bench, tenant, [claim])

    run(open_bench, scene)


def test_tokens_are_corrected_at_settlement(open_bench, tenant) -> None:
    """Estimated at admission, real afterwards, in both directions."""
    claim = a_claim("tenant", tokens=100)

    async def scene(bench) -> None:
        hold = await reserve(bench, tenant, [claim], tokens=80)
        with pytest.raises(Refusal) as refused:
            await reserve(bench, tenant, [claim], tokens=30)
        assert refused.value.code == "reserve.tokens_limit"
        await settle(bench, hold, 1, tokens=20)
        bench.dial.turn(5)
        hold = await reserve(bench, tenant, [claim], tokens=30)
        assert hold.standing.remaining_tokens == 50
        await settle(bench, hold, 1, tokens=75)
        with pytest.raises(Refusal):
            await reserve(bench, tenant, [claim], tokens=6)
        assert (await reserve(bench, tenant, [claim], tokens=5)).standing.remaining_tokens == 0

    run(open_bench, scene)


def test_a_request_larger_than_its_window_is_told_that_waiting_is_useless(open_bench, tenant) -> None:
    async def scene(bench) -> None:
        with pytest.raises(Refusal) as refused:
            await reserve(bench, tenant, [a_claim("tenant", tokens=100)], tokens=101)
        assert refused.value.code == "reserve.tokens_limit"
        assert refused.value.retry_after_s is None

    run(open_bench, scene)


def test_requests_at_once_are_counted_out_and_in(open_bench, tenant) -> None:
    claim = a_claim("tenant", concurrent=2)

    async def scene(bench) -> None:
        first = await reserve(bench, tenant, [claim])
        await reserve(bench, tenant, [claim])
        with pytest.raises(Refusal) as refused:
            await reserve(bench, tenant, [claim])
        assert refused.value.code == "reserve.concurrent_limit"
        await settle(bench, first, 1)
        await reserve(bench, tenant, [claim])

    run(open_bench, scene)


def test_refused_requests_do_not_count(open_bench, tenant) -> None:
    """Neither those that reserve refuses, nor those that a later stage does."""
    claim = a_claim("tenant", 10_000, requests=2, tokens=50)

    async def scene(bench) -> None:
        hold = await reserve(bench, tenant, [claim])
        await settle(bench, hold, 0, tokens=0, outcome=Outcome.REFUSED)
        with pytest.raises(Refusal):
            await reserve(bench, tenant, [claim], tokens=51)
        standing = (await reserve(bench, tenant, [claim])).standing
        assert (standing.remaining_requests, standing.remaining_tokens) == (1, 40)

    run(open_bench, scene)


def test_what_a_dead_worker_held_is_charged_at_its_ceiling(open_bench, tenant) -> None:
    """The row is made of the intent; what the worker says afterwards changes nothing; sweeping again finds nothing."""
    claim = a_claim("tenant", 1_000, requests=5, concurrent=1)

    async def scene(bench) -> None:
        hold = await reserve(bench, tenant, [claim], 400)
        hold = await bench.ledger.raise_to(an_op(), hold, 450)
        observed: list[object] = []
        assert await sweep(an_op(observed), bench.sweeper, ["worker-2"]) == 0
        assert await sweep(an_op(observed), bench.sweeper, ["worker-1"]) == 1
        assert observed == [Swept(1, 450)]
        assert await bench.figures(tenant, claim) == Figures(1_000, charged_nano=450)
        (row,) = (await bench.rows(tenant)).values()
        assert (row.outcome, row.flags, row.charged_nano, row.subject) == (Outcome.FAILED, ("presumed",), 450, "ada")
        assert [(line.amount_nano, line.basis) for line in row.charge_lines] == [(450, Basis.CEILING)]
        await settle(bench, hold, 30)
        assert await bench.figures(tenant, claim) == Figures(1_000, charged_nano=450)
        assert await sweep(an_op(observed), bench.sweeper, ["worker-1"]) == 0
        await reserve(bench, tenant, [claim])

    run(open_bench, scene)


def test_a_hold_expires(open_bench, tenant) -> None:
    """Nobody need know that the worker died: after its time a hold is settled by whoever looks."""
    claim = a_claim("tenant", 1_000)

    async def scene(bench) -> None:
        await reserve(bench, tenant, [claim], 400)
        bench.dial.turn(890)
        assert await sweep(an_op(), bench.sweeper) == 0
        bench.dial.turn(20)
        assert await sweep(an_op(), bench.sweeper) == 1
        assert await bench.figures(tenant, claim) == Figures(1_000, charged_nano=400)

    run(open_bench, scene)


def test_an_intent_that_cannot_be_read_is_no_reason_to_lose_money(open_bench, tenant) -> None:
    claim = a_claim("tenant", 1_000)

    async def scene(bench) -> None:
        observed: list[object] = []
        op = an_op()
        await bench.ledger.reserve(op, tenant, [claim], an_estimate(100), lambda: b"\xc1 not msgpack")
        other = an_op()
        intent = msgspec.msgpack.encode(a_row(an_op(), "somebody-else"))
        await bench.ledger.reserve(other, tenant, [claim], an_estimate(100), lambda: intent)
        assert await sweep(an_op(observed), bench.sweeper, ["worker-1"]) == 2
        rows = await bench.rows(tenant)
        assert set(rows) == {op.id, other.id}
        assert rows[op.id].arrived_unix_ns == op.arrived_unix_ns
        assert sum(isinstance(said, Failed) for said in observed) == 2
        assert (await bench.figures(tenant, claim)).charged_nano == 200

    run(open_bench, scene)


def test_a_reservation_whose_answer_was_lost_leaves_no_charge(open_bench, tenant) -> None:
    """The store held, the caller never heard, and its exchange was recorded without a hold: the hold goes with the row."""
    claim = a_claim("tenant", 1_000)

    async def scene(bench) -> None:
        hold = await reserve(bench, tenant, [claim], 400)
        row = a_row(bench.ops[hold.id], tenant, outcome=Outcome.REFUSED, refusal_code="reserve.store_unavailable")
        await bench.recorder.record(Entry(row, None, None, None))
        assert await bench.figures(tenant, claim) == Figures(1_000)
        assert await sweep(an_op(), bench.sweeper, ["worker-1"]) == 0

    run(open_bench, scene)


def test_levels_out_of_order_are_a_defect(open_bench, tenant) -> None:
    """The order is the order of locks: whoever breaks it would make deadlocks."""

    async def scene(bench) -> None:
        with pytest.raises(Exception, match="claims are not in lock order"):
            await reserve(bench, tenant, [a_claim("tenant", 10), a_claim("team=a", 10)], 1)

    run(open_bench, scene)


def test_without_caps_nothing_refuses(open_bench, tenant) -> None:
    async def scene(bench) -> None:
        for _ in range(3):
            hold = await reserve(bench, tenant, [a_claim("tenant")], 10**15)
            await settle(bench, hold, 10**15)
        assert await reserve(bench, tenant, [], 1)

    run(open_bench, scene)


def test_what_is_past_its_retention_goes(open_bench, tenant) -> None:
    """Bodies first, rows later, exactly at their age; money already charged stays charged."""
    claim = a_claim("tenant", 1_000)

    async def scene(bench) -> None:
        hold = await reserve(bench, tenant, [claim], 100)
        await settle(bench, hold, 70)
        ages = {}
        for days in (0, 29.9, 30.1, 364.9, 365.1, 4_000):
            op = an_op()
            op.arrived_unix_ns -= int(days * 86_400 * 10**9)
            ages[op.id] = days
            await bench.recorder.record(Entry(a_row(op, tenant), Bodies(b"question", b"", False), None, None))
        observed: list[object] = []
        gone = await expire(an_op(observed), bench.sweeper, retention_days=365, bodies_days=30)
        assert {ages.get(row_id, 0) for row_id in await bench.rows(tenant)} == {0, 29.9, 30.1, 364.9}
        assert (gone.bodies, gone.exchanges) == (4, 2)
        assert isinstance(observed[0], Lifecycle)
        assert await expire(an_op(observed), bench.sweeper, retention_days=365, bodies_days=30) == Expired()
        assert await bench.figures(tenant, claim) == Figures(1_000, charged_nano=70)

    run(open_bench, scene)


def test_a_level_may_be_called_anything(open_bench, tenant) -> None:
    """An end user's name is the client's choice: no text breaks the ledger, and its money is found again."""
    claims = [a_claim(f"end_user=\0 \ud800 {'x' * 256} 雪 %s {{}}", 1_000, requests=2), a_claim("tenant", 1_000)]

    async def scene(bench) -> None:
        hold = await reserve(bench, tenant, claims, 900)
        with pytest.raises(Refusal):
            await reserve(bench, tenant, claims[:1], 200)
        await settle(bench, hold, 10)
        await reserve(bench, tenant, claims, 990)

    run(open_bench, scene)
