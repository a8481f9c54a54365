"""Whoever needs money that others only have on lease has it wanted back: their workers hear so at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import psycopg
import pytest

from shipworthy.adapters.store.ledger import LEASES_CHANNEL, LedgerBounds, PostgresLedger
from shipworthy.adapters.store.pool import Store
from shipworthy.kit.builders import a_claim, an_estimate, an_op
from shipworthy.model.errors import Refusal
from shipworthy.model.lease import Share
from shipworthy.model.op import uuid7
from shipworthy.ports import Ask

TENANT = "northwind"
CLAIM = a_claim("tenant", 1_000)

Needs = Callable[[PostgresLedger], Awaitable[object]]


async def reserves(ledger: PostgresLedger) -> object:
    return await ledger.reserve(an_op(), TENANT, [CLAIM], an_estimate(700), lambda: b"")


async def raises_a_hold(ledger: PostgresLedger) -> object:
    hold = await ledger.reserve(an_op(), TENANT, [CLAIM], an_estimate(10), lambda: b"")
    return await ledger.raise_to(an_op(), hold, 700)


async def tops_a_lease_up(ledger: PostgresLedger) -> object:
    ask = Ask(uuid7(0), Share(20, 0, 0, 0), 1, 10.0, True)
    await ledger.reserve_ahead(an_op(), TENANT, [CLAIM], an_estimate(10), lambda: b"", ask)
    return await ledger.top_up(an_op(), TENANT, ask.lease_id, 700)


@pytest.mark.parametrize("needs", [reserves, raises_a_hold, tops_a_lease_up])
def test_what_others_have_on_lease_is_wanted_back(fresh_store, needs: Needs) -> None:
    async def scene() -> None:
        bounds = LedgerBounds(holds_wait_ms=0)
        async with Store(fresh_store.url) as store:
            holder, asker = (PostgresLedger(store, name, bounds) for name in ("holder", "asker"))
            ask = Ask(uuid7(0), Share(400, 0, 0, 0), 1, 10.0, True)
            given = await holder.reserve_ahead(an_op(), TENANT, [CLAIM], an_estimate(1), lambda: b"", ask)
            assert given.given is not None
            with psycopg.connect(fresh_store.url, autocommit=True) as listening:
                listening.execute(f"listen {LEASES_CHANNEL}")
                with pytest.raises(Refusal, match="budget"):
                    await needs(asker)
                heard = [told.payload for told in listening.notifies(timeout=2, stop_after=1)]
            assert heard == [TENANT]

    asyncio.run(scene())
