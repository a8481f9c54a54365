"""Isolation is the product: one tenant never reaches another's rows, and a check that could not fail would prove nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest

from shipworthy.adapters.store.keyring import open_keyring
from shipworthy.adapters.store.ledger import PostgresLedger
from shipworthy.adapters.store.pool import Store, StoreRole
from shipworthy.adapters.store.recorder import PostgresRecorder
from shipworthy.adapters.store.vault import Vault
from shipworthy.kit.builders import a_charge, a_claim, a_settled_row, an_estimate, an_op
from shipworthy.model.exchange import Bodies
from shipworthy.ports import Entry

TABLES = ("exchange", "body", "data_key", "counter", "pace", "hold", "admin_act")
ACT = """
insert into admin_act (tenant, at, id, at_unix_ns, actor, act, target, facts)
values (%s, now(), %s, 1, 'a', 'b', 'c', '{}')
"""


async def fill(store: Store, keys: Path, tenant: str) -> None:
    """A row of each kind."""
    ledger, recorder = PostgresLedger(store, "w"), PostgresRecorder(store, Vault(open_keyring(keys)), print)
    claims = [a_claim("tenant", 10**9, requests=10)]
    op = an_op()
    hold = await ledger.reserve(op, tenant, claims, an_estimate(10), lambda: b"")
    charge = a_charge(hold, 5)
    await recorder.record(Entry(a_settled_row(op, hold, charge), Bodies(b"question", b"answer", False), hold, charge))
    await ledger.reserve(an_op(), tenant, claims, an_estimate(10), lambda: b"")
    await recorder.close()
    async with store.tenant(tenant) as conn:
        await conn.execute(ACT, (tenant, an_op().id))


async def check_isolation(url: str, keys: Path) -> None:
    """Two tenants, every table, every way to look or write. Fails wherever one reaches the other."""
    async with Store(url) as store:
        for tenant in ("ours", "theirs"):
            await fill(store, keys, tenant)
        for table in TABLES:
            async with store.tenant("ours") as conn:
                seen = await (await conn.execute(f"select distinct tenant from {table}")).fetchall()
                assert seen == [("ours",)], f"as ours, {table} shows {seen}"
            async with store.connection(StoreRole.APP) as conn:
                seen = await (await conn.execute(f"select tenant from {table}")).fetchall()
                assert seen == [], f"without a tenant, {table} shows {seen}"
        for table, column in (("counter", "charged_nano"), ("pace", "in_flight"), ("hold", "tokens")):
            async with store.tenant("ours") as conn:
                changed = await conn.execute(f"update {table} set {column} = 0 where tenant = 'theirs'")
                assert changed.rowcount == 0, f"ours could change {table} of theirs"
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with store.tenant("ours") as conn:
                await conn.execute(ACT, ("theirs", an_op().id))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            async with store.tenant("ours") as conn:
                await conn.execute(
                    "insert into counter (tenant, key, period, period_start, cap_nano) values ('theirs', 'k', 'p', now(), 1)"
                )


def test_no_tenant_reaches_another(fresh_store, tmp_path) -> None:
    asyncio.run(check_isolation(fresh_store.url, tmp_path / "keys"))


SABOTAGE: dict[str, str] = {
    "rls off": "alter table exchange disable row level security",
    "a wide policy": "create policy open on body for select to shipworthy_app using (true)",
    "a policy of another setting": "create policy other on hold for all to shipworthy_app using (tenant <> '')",
    "rls off on counters": "alter table counter disable row level security",
    "a policy dropped": "drop policy exchange_app_select on exchange",
    "bypass": "alter role shipworthy_app bypassrls",
}


@pytest.mark.parametrize("name", SABOTAGE)
def test_the_check_fails_where_isolation_is_broken(fresh_store, tmp_path, name) -> None:
    """Mutation: the check above finds each of these."""
    with psycopg.connect(fresh_store.superuser_url, autocommit=True, options="-c search_path=shipworthy") as conn:
        conn.execute(SABOTAGE[name])
        try:
            with pytest.raises(AssertionError):
                asyncio.run(check_isolation(fresh_store.url, tmp_path / "keys"))
        finally:
            conn.execute("alter role shipworthy_app nobypassrls")  # roles belong to the cluster


def test_nobody_edits_the_record(fresh_store, tmp_path) -> None:
    """Every runtime role: no update, no delete, no truncate, and no way past the parent table."""

    async def scene() -> None:
        async with Store(fresh_store.url) as store:
            await fill(store, tmp_path / "keys", "ours")
            for reach in (store.operator, lambda: store.tenant("ours"), lambda: store.recording("ours")):
                for table in ("exchange", "body", "admin_act", "exchange_default", "body_default"):
                    for statement in ("update {} set tenant = 'x'", "delete from {}", "truncate {}"):
                        with pytest.raises(psycopg.errors.InsufficientPrivilege):
                            async with reach() as conn:
                                await conn.execute(statement.format(table))
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    async with reach() as conn:
                        await conn.execute("select * from exchange_default")
            async with store.recording("ours") as conn:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    await conn.execute("select * from exchange")

    asyncio.run(scene())


def test_the_login_itself_reaches_nothing(fresh_store) -> None:
    with psycopg.connect(fresh_store.url) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("select * from shipworthy.exchange")


def test_a_store_is_reached_for_somebody(fresh_store) -> None:
    """No tenant is an error, never everything."""

    async def scene() -> None:
        async with Store(fresh_store.url) as store:
            with pytest.raises(ValueError, match="none was named"):
                async with store.tenant(""):
                    pass

    asyncio.run(scene())
