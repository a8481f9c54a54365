"""What ended is recorded: row, bodies and settlement together, once, whatever the row says. Memory and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from shipworthy.kit.builders import a_charge, a_claim, a_row, a_settled_row, an_estimate, an_op
from shipworthy.kit.ledger import Figures
from shipworthy.model.exchange import Bodies, Outcome, Row
from shipworthy.model.guard import Receipt
from shipworthy.model.money import Basis, ChargeLine, Component, Usage
from shipworthy.model.op import Step, uuid7
from shipworthy.model.route import Attempt, Candidate
from shipworthy.ports import Entry


@pytest.fixture
def tenant(tenant_name: Callable[[str], str]) -> str:
    return tenant_name("northwind")


def run(open_bench, scene: Callable[..., Awaitable[None]]) -> None:
    async def play() -> None:
        async with open_bench() as bench:
            await scene(bench)

    asyncio.run(play())


async def eventually(bench, tenant: str, count: int) -> dict[UUID, Row]:
    """The tenant's rows, when there are so many: enqueued entries are at most 50 ms behind (and machines are busy)."""
    for _ in range(100):
        rows = await bench.rows(tenant)
        if len(rows) >= count:
            return rows
        await asyncio.sleep(0.02)
    raise AssertionError(f"{len(await bench.rows(tenant))} rows instead of {count}")


def test_every_field_comes_back_as_it_was(open_bench, tenant) -> None:
    """The row that is kept is the row that was said: bill, budget and audit read the same one."""
    op = an_op()
    row = a_row(
        op,
        tenant,
        rules=("a", "b"),
        candidates=(
            Candidate("small", "house", True, "first in order", 0.25),
            Candidate("big", "public", False, "boundary"),
        ),
        attempts=(Attempt(1, "small", "house", "qwen", 10, 20, 5, "broken", 502, "half", True, Usage(1, 2)),),
        steps=(Step("identify", 1, 2), Step("route", 3, 4, 5, 6, "route.unavailable")),
        receipts=(Receipt("screen", "secrets", "not_configured"),),
        passage_ids=("p1", "p2"),
        charge_lines=(ChargeLine(1, "small", Component.OUTPUT, 7, 3, 1, Basis.COUNTED),),
        lease_id=uuid7(1),
        usage=None,
        outcome=Outcome.CUT,
        stream=True,
        finish=("stop", "length"),
        cut=("output capped at 1000 tokens",),
        flags=("usage_counted",),
        refusal_detail='quotes " and \\u0000 spelled out, and 雪',
        charged_nano=2**62,
    )

    async def scene(bench) -> None:
        await bench.recorder.record(Entry(row, None, None, None))
        assert await bench.rows(tenant) == {op.id: row}

    run(open_bench, scene)


def test_enqueued_entries_are_recorded_behind(open_bench, tenant) -> None:
    async def scene(bench) -> None:
        for _ in range(600):
            bench.recorder.enqueue(Entry(a_row(an_op(), tenant), None, None, None))
        assert len(await eventually(bench, tenant, 600)) == 600

    run(open_bench, scene)


def test_a_row_and_its_settlement_commit_together(open_bench, tenant) -> None:
    """Many at once, in one batch, over several tenants: every counter is right."""
    claims = [a_claim("team=a", 10**9), a_claim("tenant", 10**9, concurrent=1_000)]
    others = [f"{tenant}-{number}" for number in range(3)]

    async def one(bench, who: str) -> None:
        op = an_op()
        hold = await bench.ledger.reserve(op, who, claims, an_estimate(1_000), lambda: b"")
        charge = a_charge(hold, 7)
        await bench.recorder.record(Entry(a_settled_row(op, hold, charge), Bodies(b"q", b"a", False), hold, charge))

    async def scene(bench) -> None:
        await asyncio.gather(*(one(bench, who) for who in others for _ in range(20)))
        for who in others:
            assert len(await bench.rows(who)) == 20
            for claim in claims:
                assert await bench.figures(who, claim) == Figures(10**9, charged_nano=140)

    run(open_bench, scene)


@pytest.mark.parametrize("hostile", ["nul \0 inside", "lone \ud800 surrogate", "\\u0000", "\x1b[31m"])
def test_hostile_text_costs_itself_and_not_the_record(open_bench, tenant, hostile) -> None:
    op = an_op()
    row = a_row(op, tenant, end_user=hostile, rules=(hostile,), refusal_detail=hostile)

    async def scene(bench) -> None:
        await bench.recorder.record(Entry(row, Bodies(b"\0", hostile.encode("utf-8", "replace"), False), None, None))
        kept = (await bench.rows(tenant))[op.id]
        assert (kept.end_user, kept.rules) == (kept.rules[0], (kept.refusal_detail,))
        assert kept.end_user in (hostile, hostile.replace("\0", "\ufffd").replace("\ud800", "\ufffd"))

    run(open_bench, scene)


def test_a_charge_without_its_hold_counts_with_its_row(open_bench, tenant) -> None:
    """The hold is gone and there is no row, as after a restored backup: the budget must say what the bill says."""
    claim = a_claim("tenant", 1_000)

    async def scene(bench) -> None:
        op = an_op()
        hold = await bench.ledger.reserve(op, tenant, [claim], an_estimate(100), lambda: b"")
        charge = a_charge(hold, 60)
        entry = Entry(a_settled_row(op, hold, charge), None, hold, charge)
        await bench.recorder.record(entry)
        again = an_op()
        lost = type(hold)(again.id, tenant, hold.estimate, hold.claims, hold.standing)
        await bench.recorder.record(Entry(a_settled_row(again, lost, charge), None, lost, charge))
        assert await bench.figures(tenant, claim) == Figures(1_000, charged_nano=120)

    run(open_bench, scene)
