"""How fast one worker's writer records: PostgreSQL on one core, the worker on the other. See README.md beside this file.

An exchange is what a gateway writes: its row, both bodies sealed, counters at three levels, and a lease that pays. ``whole``
adds what stands before it: the intent, committed before egress and taken away with the row. ``strict`` callers wait for
each commit, so many at once as the size says; ``relaxed`` ones hand over and go on, and batches are of that size.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psycopg
import uvloop
from msgspec import Struct, structs
from psycopg.conninfo import make_conninfo

from shipworthy.adapters.embedded.postgres import EmbeddedPostgres
from shipworthy.adapters.embedded.postgres_passwords import LOGIN, SUPERUSER, read_passwords
from shipworthy.adapters.store import migrate
from shipworthy.adapters.store.keyring import Kek, Keyring
from shipworthy.adapters.store.ledger import claims_json
from shipworthy.adapters.store.pool import Store
from shipworthy.adapters.store.recorder import PostgresRecorder, RecorderBounds
from shipworthy.adapters.store.vault import Vault
from shipworthy.kit import rows
from shipworthy.kit.builders import a_charge, a_claim, an_estimate
from shipworthy.model.exchange import Bodies, Row
from shipworthy.model.guard import Receipt
from shipworthy.model.ledger import Hold, Standing
from shipworthy.model.op import Step, uuid7
from shipworthy.ports import Entry, Intent

CLAIMS = tuple(a_claim(key, 10**18) for key in ("team=support", "team=support/use_case=support", "tenant"))
STAGES = (
    "identify", "decode", "authorize", "dedupe", "reserve", "resolve", "retrieve", "screen", "fit", "recall", "route",
    "call", "deliver", "settle",
)  # fmt: skip
BODIES = Bodies(os.urandom(900), os.urandom(1_600), False)
HELD, CHARGED = 5_000, 1_200
LAG = 2  # batches between an intent and its row, in `whole relaxed`
ENTRIES_MAX = 40_000  # a round


class Round(Struct):
    """What one round came to."""

    mode: str
    size: int
    per_second: float
    writer_us: float  # CPU of the writer's thread, an exchange
    client_us: float  # of the whole worker
    postgres_us: float
    commit_ms: float  # median wait of a strict caller for its row; 0 = nobody waited


def sample(size: str) -> Row:
    """``real``: one model that answered, fourteen stages; ``small``: no steps, attempts, candidates."""
    full = rows.row(environment="production", region="eu", session="")
    if size == "small":
        return structs.replace(
            full, steps=(), receipts=(), attempts=(), candidates=(), charge_lines=full.charge_lines[:1]
        )
    return structs.replace(
        full,
        candidates=full.candidates[1:2],
        attempts=full.attempts[1:],
        steps=tuple(Step(stage, place * 1_000_000, 123_456) for place, stage in enumerate(STAGES)),
        receipts=tuple(
            Receipt(stage, "", "not_configured") for stage in ("resolve", "retrieve", "screen", "recall", "inspect")
        ),
    )


@contextmanager
def postgres(core: int) -> Iterator[tuple[EmbeddedPostgres, str, str]]:
    """A migrated server on one core: its launcher, the login's URL, a superuser's."""
    base = Path(tempfile.mkdtemp(prefix="shipworthy-bench-"))
    base.chmod(0o755)
    ours = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    launcher = EmbeddedPostgres(base / "store", base=base)
    try:
        cluster = launcher.start()
        os.sched_setaffinity(0, ours)
        migrate.apply(cluster.migrate_url, LOGIN)
        kept = read_passwords(cluster.data_path.parent / "passwords.json")
        assert kept is not None
        yield launcher, cluster.url, make_conninfo(cluster.url, user=SUPERUSER, password=kept.superuser)
    finally:
        launcher.stop()
        shutil.rmtree(base, ignore_errors=True)


class Bench:
    """A worker's recorder over a server, and the CPU of both sides."""

    def __init__(self, url: str, superuser_url: str, pid: int, row: Row) -> None:
        self.url, self.pid, self.row = url, pid, row
        self.superuser_url = make_conninfo(superuser_url, options="-c search_path=shipworthy,public")
        self.lease_id = uuid7(time.time_ns())
        with psycopg.connect(self.superuser_url) as conn:
            conn.execute(
                "insert into lease (tenant, id, worker, claims, levels, nano, requests, tokens, places, expires_at)"
                " values (%s, %s, 'bench', %s::jsonb, %s, %s, 0, 0, 0, 'infinity')",
                (row.tenant, self.lease_id, claims_json(CLAIMS), [claim.key for claim in CLAIMS], 10**17),
            )
            for claim in CLAIMS:
                conn.execute(
                    "insert into counter (tenant, key, period, period_start, cap_nano, leased_nano)"
                    " values (%s, %s, %s, %s, %s, %s)",
                    (row.tenant, claim.key, claim.period, claim.period_start, claim.cap_nano, 10**17),
                )

    def entries(self, count: int) -> list[Entry]:
        made = []
        for _ in range(count):
            at = time.time_ns()
            hold = Hold(uuid7(at), self.row.tenant, an_estimate(HELD), CLAIMS, Standing(), self.lease_id)
            charge = a_charge(hold, CHARGED)
            row = structs.replace(
                self.row, id=hold.id, arrived_unix_ns=at, lease_id=self.lease_id, charged_nano=CHARGED, held_nano=HELD
            )
            made.append(Entry(row, BODIES, hold, charge))
        return made

    def postgres_s(self) -> float:
        """CPU of all of the server's processes that live."""
        total = 0
        for place in Path("/proc").iterdir():
            if place.name.isdigit():
                try:
                    if int((place / "stat").read_text().rpartition(")")[2].split()[1]) in (self.pid, 0):
                        total += int((place / "schedstat").read_text().split()[0])
                except OSError:
                    continue
        return total / 1e9

    def check(self, recorded: int) -> None:
        """Whether everything that was counted is there: rows, bodies, counters, the lease."""
        with psycopg.connect(self.superuser_url) as conn:
            spent = recorded * CHARGED
            for query, wanted in (
                ("select count(*) from exchange", recorded),
                ("select count(*) from body", 2 * recorded),
                ("select count(*) from hold", 0),
                ("select sum(charged_nano)::bigint from counter", spent * len(CLAIMS)),
                ("select sum(leased_nano)::bigint from counter", (10**17 - spent) * len(CLAIMS)),
                ("select nano from lease", 10**17 - spent),
            ):
                found = conn.execute(query).fetchone()
                assert found == (wanted,), f"{query}: {found} instead of {wanted}"


def writer_s() -> float:
    threads = [thread for thread in threading.enumerate() if thread.name == "recorder" and thread.ident]
    return sum(time.clock_gettime(time.pthread_getcpuclockid(thread.ident)) for thread in threads if thread.ident)


def intent_of(entry: Entry) -> Intent:
    assert entry.hold is not None
    drafted = entry.row
    return Intent(entry.hold, entry.row.arrived_unix_ns, 900.0, lambda: msgspec.msgpack.encode(drafted))


async def strict(
    recorder: PostgresRecorder, entries: deque[Entry], until: float, size: int, whole: bool
) -> list[float]:
    waits: list[float] = []

    async def caller() -> None:
        while entries and time.monotonic() < until:
            entry = entries.popleft()
            if whole:
                await recorder.intended(intent_of(entry))
            began = time.monotonic()
            await recorder.record(entry)
            waits.append(time.monotonic() - began)

    await asyncio.gather(*(caller() for _ in range(size)))
    return waits


async def relaxed(
    recorder: PostgresRecorder, entries: deque[Entry], until: float, size: int, whole: bool
) -> list[float]:
    ahead: deque[Entry] = deque()
    while (entries or ahead) and (time.monotonic() < until or ahead):
        if recorder.waiting >= 3 * size + 8:
            await asyncio.sleep(0.0005)
            continue
        if whole and entries and time.monotonic() < until:
            ahead.append(entries.popleft())
            recorder.intend(intent_of(ahead[-1]))
        if not whole:
            recorder.enqueue(entries.popleft())
        elif len(ahead) > LAG * size + 16 or time.monotonic() >= until or not entries:
            recorder.enqueue(ahead.popleft())
    return []


async def play(bench: Bench, mode: str, size: int, seconds: float) -> tuple[Round, int]:
    """One round; also how many exchanges it recorded."""
    whole, how = mode.startswith("whole"), mode.split()[-1]
    entries = deque(bench.entries(min(ENTRIES_MAX, int(seconds * 15_000))))
    before = len(entries)
    bounds = RecorderBounds(batch_entries_max=size if how == "relaxed" else 256)
    async with Store(bench.url) as store:
        vault = Vault(Keyring((Kek("k", bytes(32)),), bytes(32)))
        recorder = PostgresRecorder(store, vault, print, bounds, worker="bench")
        warm = bench.entries(8)
        for entry in warm:
            await recorder.record(entry)
        gc.collect()
        gc.freeze()
        at, mine, writers, theirs = time.monotonic(), time.process_time(), writer_s(), bench.postgres_s()
        drive = strict if how == "strict" else relaxed
        waits = await drive(recorder, entries, at + seconds, size, whole)
        while recorder.waiting:  # noqa: ASYNC110 - the writer is a thread
            await asyncio.sleep(0.001)
        took = time.monotonic() - at
        spent = [time.process_time() - mine, writer_s() - writers, bench.postgres_s() - theirs]
        count = before - len(entries)
        client_us, writer_us, postgres_us = (figure / count * 1e6 for figure in spent)
        assert await recorder.close() == 0
    median_ms = statistics.median(waits) * 1e3 if waits else 0.0
    return Round(mode, size, count / took, writer_us, client_us, postgres_us, median_ms), count + len(warm)


def measure(asked: argparse.Namespace, modes: Sequence[str], sizes: Sequence[int]) -> list[Round]:
    cores = sorted(os.sched_getaffinity(0))
    results: list[Round] = []
    with postgres(cores[-1]) as (launcher, url, superuser_url):
        os.sched_setaffinity(0, {cores[0]})
        bench = Bench(url, superuser_url, launcher.start().pid, sample(asked.row))
        print(
            f"row: {len(msgspec.json.encode(bench.row)):,} bytes of JSON; bodies: 900 + 1,600 bytes; 3 levels; one core each"
        )
        print(
            f"{'':<16}{'size':>6}{'exchanges/s':>14}{'writer µs':>12}{'worker µs':>12}{'PostgreSQL µs':>16}{'commit ms':>12}"
        )
        recorded = 0
        for mode in modes:
            for size in sizes:
                rounds = []
                for _ in range(asked.rounds):
                    figures, count = uvloop.run(play(bench, mode, size, asked.seconds))
                    recorded += count
                    rounds.append(figures)
                median = sorted(rounds, key=lambda each: each.per_second)[len(rounds) // 2]
                results.append(median)
                print_line(median)
        bench.check(recorded)
        print(f"{recorded:,} exchanges: rows, bodies, counters and the lease agree")
    return results


def print_line(r: Round) -> None:
    print(
        f"{r.mode:<16}{r.size:>6}{r.per_second:>14,.0f}{r.writer_us:>12,.1f}{r.client_us:>12,.1f}{r.postgres_us:>16,.1f}"
        f"{r.commit_ms:>12,.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", choices=("real", "small"), default="real")
    parser.add_argument("--modes", default="rows strict,rows relaxed,whole strict,whole relaxed")
    parser.add_argument("--sizes", default="1,8,32,64,256")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    results = measure(asked, asked.modes.split(","), [int(size) for size in asked.sizes.split(",")])
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(results)))


if __name__ == "__main__":
    main()
