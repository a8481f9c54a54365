"""A lease never holds more than the store set aside: what every LeaseStore, with its Recorder and Sweeper, must keep.

Run over memory and PostgreSQL. Here a worker is played by hand; tests/property/test_lease_machine.py plays real ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import msgspec
import pytest

from shipworthy.control.sweep import sweep
from shipworthy.kit.builders import a_charge, a_claim, a_row, a_settled_row, an_estimate, an_op
from shipworthy.kit.memory_levels import Figures
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.exchange import Outcome
from shipworthy.model.lease import Share, Turn, Turned
from shipworthy.model.ledger import Claim, Hold
from shipworthy.model.op import Op, uuid7
from shipworthy.ports import SUSPENDED_S, Advance, Ask, Entry, Intent

TTL_S = 10.0
NOTHING = Share(0, 0, 0, 0)
MUCH = Share(10**6, 10**4, 10**6, 10**4)


@pytest.fixture
def tenant(tenant_name: Callable[[str], str]) -> str:
    return tenant_name("leasing")


def run(open_bench, scene: Callable[..., Awaitable[None]]) -> None:
    async def play() -> None:
        async with open_bench() as bench:
            await scene(bench)

    asyncio.run(play())


def an_ask(wish: Share, lease_id: UUID | None = None, workers: int = 1, *, direct: bool = True) -> Ask:
    return Ask(lease_id or uuid7(0), wish, workers, TTL_S, direct)


def drafted(op: Op, tenant: str) -> Callable[[], bytes]:
    return lambda: msgspec.msgpack.encode(a_row(op, tenant, outcome=Outcome.FAILED))


async def ahead(bench, tenant: str, claims: list[Claim], ask: Ask, amount_nano: int = 100, tokens: int = 10) -> Advance:
    op = an_op()
    bench.ops[op.id] = op
    return await bench.ledger.reserve_ahead(
        op, tenant, claims, an_estimate(amount_nano, tokens), drafted(op, tenant), ask
    )


async def leased(bench, tenant: str, claims: list[Claim], wish: Share = MUCH) -> tuple[UUID, Share]:
    """A lease, and what it was given."""
    ask = an_ask(wish)
    advance = await ahead(bench, tenant, claims, ask)
    assert advance.given is not None
    return ask.lease_id, advance.given


async def turn(bench, tenant: str, lease_id: UUID, back: Share = NOTHING, **changes: object) -> Turned:
    said = {"used_requests": 0, "used_tokens": 0, "over": (), "ended": False} | changes
    report = Turn(lease_id, back.nano, back.requests, back.tokens, back.places, **said)
    (answer,) = await bench.ledger.turn(tenant, [report], TTL_S)
    assert answer.id == lease_id
    return answer


def a_hold(bench, tenant: str, claims: list[Claim], lease_id: UUID, amount_nano: int = 100) -> Hold:
    """Drawn from a lease, as a worker does by itself."""
    op = an_op()
    bench.ops[op.id] = op
    return Hold(op.id, tenant, an_estimate(amount_nano, 10), tuple(claims), None, lease_id)


async def intend(bench, hold: Hold) -> None:
    op = bench.ops[hold.id]
    await bench.recorder.intended(Intent(hold, op.arrived_unix_ns, 900.0, drafted(op, hold.tenant)))


async def settle(bench, hold: Hold, amount_nano: int) -> None:
    op, charge = bench.ops[hold.id], a_charge(hold, amount_nano, 10)
    await bench.recorder.record(Entry(a_settled_row(op, hold, charge, lease_id=hold.lease_id), None, hold, charge))


# ---------------------------------------------------------------------------------------------- given


def test_a_lease_is_at_most_its_workers_share_of_half_of_what_is_free(open_bench, tenant) -> None:
    """At every level, of money and of each limit; and not more than was wished for."""
    claims = [a_claim("team=a", 8_000, requests=100), a_claim("tenant", 40_000, tokens=2_000, concurrent=60)]

    async def scene(bench) -> None:
        first = await ahead(bench, tenant, claims, an_ask(Share(10**6, 10**4, 10**6, 10**4), workers=2))
        assert first.given == Share(2_000, 25, 500, 15)
        second = await ahead(bench, tenant, claims, an_ask(Share(500, 4, 40, 3), workers=2))
        assert second.given == Share(500, 4, 40, 3)
        assert await bench.figures(tenant, claims[0]) == Figures(8_000, leased_nano=2_500)
        assert await bench.figures(tenant, claims[1]) == Figures(40_000, leased_nano=2_500)
        assert second.standing.remaining_requests == 100 - 29
        assert second.standing.remaining_tokens == 2_000 - 540

    run(open_bench, scene)


def test_where_there_is_no_room_for_two_the_store_reserves_directly(open_bench, tenant) -> None:
    """free < 4 × workers × hold."""
    claim = a_claim("tenant", 399)

    async def scene(bench) -> None:
        assert (await ahead(bench, tenant, [claim], an_ask(MUCH))).given is None
        assert await bench.figures(tenant, claim) == Figures(399, held_nano=100)

    run(open_bench, scene)


def test_who_cannot_be_held_directly_gets_a_lease_for_one(open_bench, tenant) -> None:
    claim = a_claim("tenant", requests=3, tokens=25)

    async def scene(bench) -> None:
        advance = await ahead(bench, tenant, [claim], an_ask(Share(0, 8, 80, 0), direct=False), amount_nano=0)
        assert advance.given == Share(0, 1, 10, 0)
        with pytest.raises(Refusal) as refused:
            await ahead(bench, tenant, [claim], an_ask(Share(0, 8, 80, 0), direct=False), 0, tokens=16)
        assert refused.value.code == "reserve.tokens_limit"

    run(open_bench, scene)


def test_a_refill_adds_to_a_lease_or_gives_nothing(open_bench, tenant) -> None:
    claim = a_claim("tenant", 1_000)

    async def scene(bench) -> None:
        lease_id, given = await leased(bench, tenant, [claim], Share(300, 0, 0, 0))
        more = await bench.ledger.refill(
            an_op(), tenant, [claim], an_estimate(100), an_ask(Share(200, 0, 0, 0), lease_id)
        )
        assert (given.nano, more.given) == (300, Share(200, 0, 0, 0))
        none = await bench.ledger.refill(an_op(), tenant, [claim], an_estimate(200), an_ask(MUCH, lease_id))
        assert none.given is None
        assert await bench.figures(tenant, claim) == Figures(1_000, leased_nano=500)

    run(open_bench, scene)


def test_leases_of_others_stand_in_the_way_until_they_are_given_back(open_bench, tenant) -> None:
    """For a bounded time a caller waits for them; nobody is admitted beyond the cap."""
    claim = a_claim("tenant", 1_000)

    async def scene(bench) -> None:
        lease_id, given = await leased(bench, tenant, [claim])
        assert given.nano == 500
        waiting = asyncio.create_task(ahead(bench, tenant, [claim], an_ask(MUCH), amount_nano=600))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await turn(bench, tenant, lease_id, Share(200, 0, 0, 0))
        assert (await waiting).given is None
        assert await bench.figures(tenant, claim) == Figures(1_000, held_nano=600, leased_nano=300)
        with pytest.raises(Refusal) as refused:
            await ahead(bench, tenant, [claim], an_ask(MUCH), amount_nano=101)
        assert refused.value.code == "reserve.budget_exhausted"

    run(open_bench, scene)


def test_a_lease_is_topped_up_or_stays_as_it_is(open_bench, tenant) -> None:
    claim = a_claim("tenant", 1_000)

    async def scene(bench) -> None:
        lease_id, _ = await leased(bench, tenant, [claim], Share(300, 0, 0, 0))
        await bench.ledger.top_up(an_op(), tenant, lease_id, 700)
        with pytest.raises(Refusal) as refused:
            await bench.ledger.top_up(an_op(), tenant, lease_id, 1)
        assert refused.value.facts["level"] == "tenant"
        assert await bench.figures(tenant, claim) == Figures(1_000, leased_nano=1_000)
        with pytest.raises(StoreUnavailable):
            await bench.ledger.top_up(an_op(), tenant, uuid7(0), 1)

    run(open_bench, scene)


# ---------------------------------------------------------------------------------------------- spent


@pytest.mark.parametrize(("amount_nano", "left_nano"), [(30, 470), (100, 400), (250, 400)])
def test_a_lease_pays_at_most_what_was_held(open_bench, tenant, amount_nano, left_nano) -> None:
    """With the row: less, all, or all and an overrun, which is charged beyond it."""
    claim = a_claim("tenant", 1_000)

    async def scene(bench) -> None:
        lease_id, _ = await leased(bench, tenant, [claim])
        hold = a_hold(bench, tenant, [claim], lease_id)
        await settle(bench, hold, amount_nano)
        assert await bench.figures(tenant, claim) == Figures(1_000, charged_nano=amount_nano, leased_nano=left_nano)
        await settle(bench, hold, amount_nano)
        assert await bench.figures(tenant, claim) == Figures(1_000, charged_nano=amount_nano, leased_nano=left_nano)

    run(open_bench, scene)


def test_a_turn_gives_back_and_reports_what_was_used(open_bench, tenant) -> None:
    """What was used counts in the sliding minute from now on; what is given back is free at once."""
    claim = a_claim("tenant", 1_000, requests=20, tokens=400)

    async def scene(bench) -> None:
        lease_id, given = await leased(bench, tenant, [claim])
        assert given == Share(500, 10, 200, 10**4)
        answer = await turn(bench, tenant, lease_id, Share(100, 4, 80, 0), used_requests=3, used_tokens=30)
        assert (answer.gone, answer.standing.remaining_requests, answer.standing.remaining_tokens) == (False, 14, 280)
        assert await bench.figures(tenant, claim) == Figures(1_000, leased_nano=400)
        answer = await turn(bench, tenant, lease_id, over=((answer.second, 1, 25),))
        assert (answer.standing.remaining_requests, answer.standing.remaining_tokens) == (15, 305)
        bench.dial.turn(61.5)
        answer = await turn(bench, tenant, lease_id)
        assert (answer.standing.remaining_requests, answer.standing.remaining_tokens) == (17, 310)

    run(open_bench, scene)


def test_a_lease_that_ended_goes_when_its_last_row_is_recorded(open_bench, tenant) -> None:
    claim = a_claim("tenant", 1_000, requests=40, concurrent=40)

    async def scene(bench) -> None:
        lease_id, _ = await leased(bench, tenant, [claim], Share(500, 5, 0, 5))
        hold = a_hold(bench, tenant, [claim], lease_id)
        answer = await turn(bench, tenant, lease_id, Share(400, 2, 0, 5), used_requests=3, ended=True)
        assert answer.standing.remaining_requests == 37
        assert await bench.figures(tenant, claim) == Figures(1_000, leased_nano=100)
        await settle(bench, hold, 100)
        assert await bench.figures(tenant, claim) == Figures(1_000, charged_nano=100)
        assert (await turn(bench, tenant, lease_id)).gone

    run(open_bench, scene)


def test_what_an_ended_lease_cannot_say_counts_as_used(open_bench, tenant) -> None:
    """An answer was lost on the way: the worker knows of less than the store."""
    claim = a_claim("tenant", requests=40, tokens=400)

    async def scene(bench) -> None:
        ask = an_ask(Share(0, 8, 80, 0))
        await ahead(bench, tenant, [claim], ask, amount_nano=0)
        answer = await turn(bench, tenant, ask.lease_id, Share(0, 2, 20, 0), used_requests=1, ended=True)
        assert (answer.standing.remaining_requests, answer.standing.remaining_tokens) == (34, 340)

    run(open_bench, scene)


# ---------------------------------------------------------------------------------------------- the dead


def test_a_lease_that_was_not_renewed_is_suspended_and_resumes(open_bench, tenant) -> None:
    """Nobody else can spend it meanwhile; whoever was only slow goes on with it."""
    claim = a_claim("tenant", 1_000)

    async def scene(bench) -> None:
        lease_id, _ = await leased(bench, tenant, [claim])
        await intend(bench, a_hold(bench, tenant, [claim], lease_id))
        bench.dial.turn(TTL_S - 1)
        await sweep(an_op(), bench.sweeper)
        assert await bench.figures(tenant, claim) == Figures(1_000, leased_nano=500)
        bench.dial.turn(2)
        await sweep(an_op(), bench.sweeper)
        assert await bench.figures(tenant, claim) == Figures(1_000, suspended_nano=500)
        with pytest.raises(StoreUnavailable):
            await bench.ledger.top_up(an_op(), tenant, lease_id, 1)
        assert not (await turn(bench, tenant, lease_id, Share(100, 0, 0, 0))).gone
        assert await bench.figures(tenant, claim) == Figures(1_000, leased_nano=400)

    run(open_bench, scene)


def test_what_a_dead_worker_had_begun_is_charged_and_the_rest_is_free(open_bench, tenant) -> None:
    """Not before nothing that it sent can still arrive."""
    claim = a_claim("tenant", 1_000, requests=100, concurrent=100)

    async def scene(bench) -> None:
        lease_id, _ = await leased(bench, tenant, [claim], Share(500, 5, 0, 5))
        await intend(bench, a_hold(bench, tenant, [claim], lease_id))
        assert await sweep(an_op(), bench.sweeper, ["worker-1"]) == 0
        assert await bench.figures(tenant, claim) == Figures(1_000, suspended_nano=500)
        await bench.hang_up()
        assert await sweep(an_op(), bench.sweeper, ["worker-1"]) == 1
        assert await bench.figures(tenant, claim) == Figures(1_000, charged_nano=100)
        (row,) = (await bench.rows(tenant)).values()
        assert (row.flags, row.charged_nano) == (("presumed",), 100)
        advance = await ahead(bench, tenant, [claim], an_ask(Share(100, 2, 0, 2)))
        assert advance.standing.remaining_requests == 100 - 5 - 2, "what it had of the minute counts as used"

    run(open_bench, scene)


def test_a_worker_that_is_silent_for_long_is_believed_dead(open_bench, tenant) -> None:
    claim = a_claim("tenant", 1_000)

    async def scene(bench) -> None:
        lease_id, _ = await leased(bench, tenant, [claim])
        await intend(bench, a_hold(bench, tenant, [claim], lease_id))
        await bench.hang_up()
        bench.dial.turn(TTL_S + 1)
        assert await sweep(an_op(), bench.sweeper) == 0
        bench.dial.turn(SUSPENDED_S + 1)
        assert await sweep(an_op(), bench.sweeper) == 1
        assert await bench.figures(tenant, claim) == Figures(1_000, charged_nano=100)
        assert (await turn(bench, tenant, lease_id)).gone

    run(open_bench, scene)


def test_exchanges_of_a_dead_worker_cost_no_more_than_their_lease_has(open_bench, tenant) -> None:
    """Intents are ceilings of different moments; money that was never set aside is not charged."""
    claim = a_claim("tenant", 1_000)

    async def scene(bench) -> None:
        lease_id, _ = await leased(bench, tenant, [claim], Share(250, 0, 0, 0))
        for _ in range(3):
            await intend(bench, a_hold(bench, tenant, [claim], lease_id))
        await bench.hang_up()
        assert await sweep(an_op(), bench.sweeper, ["worker-1"]) == 3
        assert await bench.figures(tenant, claim) == Figures(1_000, charged_nano=250)
        assert sorted(row.charged_nano for row in (await bench.rows(tenant)).values()) == [50, 100, 100]

    run(open_bench, scene)


def test_a_worker_whose_exchanges_were_presumed_spends_that_lease_no_more(open_bench, tenant) -> None:
    """It was not dead after all: what it believes that is left may be charged by now."""
    claim = a_claim("tenant", 1_000)

    async def scene(bench) -> None:
        lease_id, _ = await leased(bench, tenant, [claim])
        for _ in range(2):
            await intend(bench, a_hold(bench, tenant, [claim], lease_id))
        await bench.hang_up()
        await bench.sweeper.suspend(await bench.sweeper.strays(["worker-1"], 10))
        orphan, _ = await bench.sweeper.orphans(["worker-1"], 10)
        charge = a_charge(orphan.hold, 100, 10)
        row = a_settled_row(bench.ops[orphan.hold.id], orphan.hold, charge)
        assert await bench.sweeper.presume(an_op(), [Entry(row, None, orphan.hold, charge)])
        assert await bench.figures(tenant, claim) == Figures(1_000, charged_nano=100, suspended_nano=400)
        assert (await turn(bench, tenant, lease_id, Share(400, 0, 0, 0))).gone
        assert await bench.figures(tenant, claim) == Figures(1_000, charged_nano=100, suspended_nano=400)

    run(open_bench, scene)


def test_an_intent_goes_with_the_row_of_its_exchange(open_bench, tenant) -> None:
    """Said twice it stands once, at its highest; with the row, of whatever outcome, there is nothing to presume."""
    claim = a_claim("tenant", 1_000)

    async def scene(bench) -> None:
        lease_id, _ = await leased(bench, tenant, [claim])
        raised, served = (a_hold(bench, tenant, [claim], lease_id) for _ in range(2))
        await intend(bench, served)
        await intend(bench, raised)
        raised.estimate = an_estimate(180, 10)
        await asyncio.gather(intend(bench, raised), intend(bench, raised))
        await settle(bench, served, 10)
        await bench.hang_up()
        assert await sweep(an_op(), bench.sweeper, ["worker-1"]) == 1
        assert await bench.figures(tenant, claim) == Figures(1_000, charged_nano=190)

    run(open_bench, scene)
