"""Money is exact on any number of workers: real processes, one store, three levels, no way past a cap."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable

import psycopg

from shipworthy.adapters.store.keyring import open_keyring
from shipworthy.adapters.store.pool import Store
from shipworthy.adapters.store.sweep import StoreSweeper
from shipworthy.adapters.store.vault import Vault
from shipworthy.control.sweep import sweep
from shipworthy.kit.builders import an_op

WORKERS = 8
CAPS = {"team=a": 40_000_000, "team=a/use_case=b": 25_000_000, "tenant": 60_000_000}

WORKER = """
import asyncio, json, random, sys
import uvloop
from shipworthy.adapters.store.keyring import Kek, Keyring
from shipworthy.adapters.store.ledger import PostgresLedger
from shipworthy.adapters.store.pool import Store
from shipworthy.adapters.store.recorder import PostgresRecorder
from shipworthy.adapters.store.vault import Vault
from shipworthy.kit.builders import a_charge, a_claim, a_settled_row, an_estimate, an_op
from shipworthy.model.errors import Refusal
from shipworthy.ports import Entry

said = json.loads(sys.stdin.read())
claims = [a_claim(key, cap, requests=100_000, concurrent=10_000) for key, cap in sorted(said["caps"].items())]
draw = random.Random(said["seed"])

async def caller(ledger, recorder, spent):
    refused = 0
    while refused < 3:
        op = an_op()
        ceiling = draw.randint(100_000, 400_000)
        try:
            hold = await ledger.reserve(op, said["tenant"], claims, an_estimate(ceiling), lambda: b"")
        except Refusal as refusal:
            assert refusal.code == "reserve.budget_exhausted", refusal
            refused += 1
            continue
        await asyncio.sleep(draw.random() / 100)
        charge = a_charge(hold, draw.randint(0, ceiling))
        await recorder.record(Entry(a_settled_row(op, hold, charge), None, hold, charge))
        spent.append(charge.amount_nano)

async def main():
    async with Store(said["url"]) as store:
        ledger = PostgresLedger(store, said["worker"])
        recorder = PostgresRecorder(store, Vault(Keyring((Kek("k", bytes(32)),), bytes(32))), print)
        spent = []
        await asyncio.gather(*(caller(ledger, recorder, spent) for _ in range(4)))
        assert await recorder.close() == 0
    print(json.dumps(sum(spent)))

uvloop.run(main())
"""


def workers(url: str, tenant: str) -> list[subprocess.Popen[str]]:
    started = []
    for number in range(WORKERS):
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        said = {"url": url, "tenant": tenant, "caps": CAPS, "seed": number, "worker": f"worker-{number}"}
        process.stdin.write(json.dumps(said))
        process.stdin.close()
        process.stdin = None
        started.append(process)
    return started


def test_eight_workers_spend_a_budget_to_its_end_and_no_further(store_urls, tenant_name: Callable[[str], str]) -> None:
    """While they spend, no level is ever beyond its cap; at the end the narrowest is used up, and every row adds up."""
    tenant = tenant_name("northwind")
    started = workers(store_urls.url, tenant)
    beyond: list[tuple[object, ...]] = []
    looks = 0
    with psycopg.connect(store_urls.superuser_url, autocommit=True, options="-c search_path=shipworthy") as conn:
        while any(process.poll() is None for process in started):
            looks += 1
            beyond += conn.execute(
                "select * from counter where tenant = %s"
                " and charged_nano + held_nano + leased_nano + suspended_nano > cap_nano",
                (tenant,),
            ).fetchall()
        answers = [process.communicate(timeout=30) for process in started]
        assert [process.returncode for process in started] == [0] * WORKERS, answers
        spent = sum(json.loads(answer) for answer, _ in answers)
        figures = dict(
            conn.execute(
                "select key, charged_nano from counter where tenant = %s and held_nano = 0", (tenant,)
            ).fetchall()
        )
        rows = conn.execute("select sum(charged_nano)::bigint from exchange where tenant = %s", (tenant,)).fetchone()
        pace = conn.execute("select sum(in_flight) from pace where tenant = %s", (tenant,)).fetchone()
    assert looks > 20
    assert beyond == []
    assert figures == dict.fromkeys(CAPS, spent)
    assert rows == (spent,)
    assert pace == (0,)
    assert 0.95 * min(CAPS.values()) <= spent <= min(CAPS.values())


def test_a_worker_that_is_killed_loses_no_money(fresh_store, tenant_name: Callable[[str], str], tmp_path) -> None:
    """kill -9 in the middle: what it held is swept at its ceiling, and counters equal rows."""
    tenant = tenant_name("northwind")
    started = workers(fresh_store.url, tenant)
    with psycopg.connect(fresh_store.superuser_url, autocommit=True, options="-c search_path=shipworthy") as conn:

        def one(query: str) -> int:
            found = conn.execute(query, (tenant,)).fetchone()
            assert found is not None
            return int(found[0] or 0)

        while one("select count(*) from exchange where tenant = %s") < 20:
            assert any(process.poll() is None for process in started)
        for process in started:
            process.kill()
        for process in started:
            process.communicate()
        busy = (
            "select count(*) from pg_stat_activity"
            " where datname = current_database() and usename = 'shipworthy' and %s <> ''"
        )
        while one(busy):  # what the dead had sent is still being done
            time.sleep(0.01)
        held = one("select count(*) from hold where tenant = %s")

        async def clean() -> int:
            async with Store(fresh_store.url) as store:
                sweepers = [StoreSweeper(store, Vault(open_keyring(tmp_path / "keys"))) for _ in range(3)]
                dead = [f"worker-{number}" for number in range(WORKERS)]
                return sum(await asyncio.gather(*(sweep(an_op(), sweeper, dead) for sweeper in sweepers)))

        assert held > 0
        assert asyncio.run(clean()) == held
        spent = one("select sum(charged_nano) from exchange where tenant = %s")
        assert one("select count(*) from hold where tenant = %s") == 0
        assert one("select sum(in_flight) from pace where tenant = %s") == 0
        for key in CAPS:
            figures = conn.execute(
                "select charged_nano, held_nano from counter where tenant = %s and key = %s", (tenant, key)
            ).fetchone()
            assert figures == (spent, 0)
