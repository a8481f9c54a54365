"""A lease pays with the row: what settlement in PostgreSQL does to leases, their counters and their intents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

import msgspec
import psycopg
import pytest
from msgspec import structs
from psycopg.types.json import Jsonb

from shipworthy.adapters.store import arrays
from shipworthy.adapters.store.batch import BatchWriter
from shipworthy.adapters.store.keyring import Kek, Keyring
from shipworthy.adapters.store.ledger import claims_json
from shipworthy.adapters.store.pool import Store, StoreRole
from shipworthy.adapters.store.vault import Vault
from shipworthy.kit.builders import PERIOD_END, a_charge, a_claim, a_row, a_settled_row, an_estimate, an_op
from shipworthy.model.exchange import Bodies, Outcome
from shipworthy.model.ledger import Hold, Standing
from shipworthy.model.op import uuid7
from shipworthy.ports import Entry

TENANT = "northwind"
CLAIMS = (a_claim("team=a", 10_000), a_claim("team=a/use_case=b", requests=100), a_claim("tenant", 20_000))
BUDGETED = ("team=a", "tenant")


class Desk:
    """A store with a writer, and how to look behind it."""

    def __init__(self, conn: psycopg.Connection[tuple[object, ...]], writer: BatchWriter) -> None:
        self.conn = conn
        self.writer = writer

    def lease(self, nano: int, *, suspended: bool = False, ended: bool = False) -> UUID:
        """A lease of the worker's, and its money at its levels."""
        lease_id = uuid7(an_op().arrived_unix_ns)
        self.conn.execute(
            "insert into lease (tenant, id, worker, claims, levels, nano, requests, tokens, places, suspended_at, ended,"
            " expires_at) values (%s, %s, 'w', %s::jsonb, %s, %s, 9, 9, 9, case when %s then now() end, %s, now())",
            (TENANT, lease_id, claims_json(CLAIMS), [claim.key for claim in CLAIMS], nano, suspended, ended),
        )
        column = "suspended_nano" if suspended else "leased_nano"
        for claim in CLAIMS:
            if claim.cap_nano >= 0:
                self.conn.execute(
                    f"insert into counter as c (tenant, key, period, period_start, cap_nano, {column})"
                    f" values (%s, %s, %s, %s, %s, %s) on conflict (tenant, key, period, period_start)"
                    f" do update set {column} = c.{column} + excluded.{column}",
                    (TENANT, claim.key, claim.period, claim.period_start, claim.cap_nano, nano),
                )
        return lease_id

    def intent(self, entry: Entry) -> None:
        """The intent of a leased exchange, as the recorder would have written it."""
        hold = entry.hold
        assert hold is not None
        self.conn.execute(
            "insert into hold (tenant, id, arrived_unix_ns, claims, amount_nano, tokens, paced_s, worker, expires_at,"
            " intent, lease_id) values (%s, %s, %s, %s::jsonb, %s, 10, 0, 'w', now(), '', %s)",
            (
                TENANT,
                hold.id,
                entry.row.arrived_unix_ns,
                claims_json(hold.claims),
                hold.estimate.amount_nano,
                hold.lease_id,
            ),
        )

    def counters(self) -> dict[str, tuple[int, ...]]:
        """By level: charged, held, leased, suspended."""
        found = self.conn.execute(
            "select key, charged_nano, held_nano, leased_nano, suspended_nano from counter where tenant = %s", (TENANT,)
        )
        return {str(key): figures for key, *figures in map(list, found)}

    def leases(self) -> dict[UUID, int]:
        return dict(self.conn.execute("select id, nano from lease where tenant = %s", (TENANT,)).fetchall())

    def one(self, query: str) -> object:
        found = self.conn.execute(query).fetchone()
        assert found is not None
        return found[0]

    def each(self, *figures: int) -> dict[str, list[int]]:
        return {key: list(figures) for key in BUDGETED}


@pytest.fixture
def desk(fresh_store) -> Iterator[Desk]:
    store = Store(fresh_store.url)
    writer = BatchWriter(store.conninfo(StoreRole.RECORDER), Vault(Keyring((Kek("k", bytes(32)),), bytes(32))))
    options = "-c search_path=shipworthy,public"
    with psycopg.connect(fresh_store.superuser_url, autocommit=True, options=options) as conn:
        yield Desk(conn, writer)
    writer.disconnect()


def an_entry(lease_id: UUID | None, held: int, charged: int) -> Entry:
    op = an_op()
    hold = Hold(op.id, TENANT, an_estimate(held), CLAIMS, Standing(), lease_id)
    charge = a_charge(hold, charged)
    return Entry(a_settled_row(op, hold, charge, lease_id=lease_id), Bodies(b"q", b"a", False), hold, charge)


def test_a_lease_pays_with_the_row(desk) -> None:
    """leased → charged at every budgeted level, the intent goes, and the row names the levels."""
    lease_id = desk.lease(1_000)
    entry = an_entry(lease_id, held=300, charged=120)
    desk.intent(entry)
    assert desk.writer.write([entry]) == {entry.row.id}
    assert desk.leases() == {lease_id: 880}
    assert desk.counters() == desk.each(120, 0, 880, 0)
    assert desk.one("select count(*) from hold") == 0
    assert desk.one("select levels from exchange") == ["team=a@month", "tenant@month"]
    assert desk.one("select lease_id from exchange") == lease_id
    assert desk.one("select min(period_end) from counter") == PERIOD_END


def test_what_goes_beyond_the_hold_is_charged_and_not_the_leases(desk) -> None:
    lease_id = desk.lease(1_000)
    desk.writer.write([an_entry(lease_id, held=300, charged=1_500)])
    assert desk.leases() == {lease_id: 700}
    assert desk.counters() == desk.each(1_500, 0, 700, 0)


def test_a_lease_never_pays_more_than_it_has(desk) -> None:
    """A counter's leased money stays the sum of its leases', whatever a worker believes to have."""
    lease_id, other = desk.lease(100), desk.lease(50)
    desk.writer.write([an_entry(lease_id, 80, 80), an_entry(lease_id, 80, 80)])
    assert desk.leases() == {lease_id: 0, other: 50}
    assert desk.counters() == desk.each(160, 0, 50, 0)


def test_a_suspended_lease_pays_from_what_is_suspended(desk) -> None:
    lease_id = desk.lease(500, suspended=True)
    desk.writer.write([an_entry(lease_id, 200, 200)])
    assert desk.counters() == desk.each(200, 0, 0, 300)


def test_a_lease_that_is_gone_pays_nothing(desk) -> None:
    """Its money was given back: the charge counts, and nothing is given back twice."""
    desk.lease(500)
    desk.writer.write([an_entry(uuid7(an_op().arrived_unix_ns), 200, 150)])
    assert desk.counters() == desk.each(150, 0, 500, 0)


def test_an_ended_lease_goes_with_its_last_row(desk) -> None:
    lease_id = desk.lease(300, ended=True)
    desk.writer.write([an_entry(lease_id, 200, 200)])
    assert desk.leases() == {lease_id: 100}
    desk.writer.write([an_entry(lease_id, 100, 100)])
    assert desk.leases() == {}
    assert desk.counters() == desk.each(300, 0, 0, 0)


def test_a_batch_that_is_said_again_counts_once(desk) -> None:
    """As a whole, and in part: an answer that was lost is no reason to pay again."""
    lease_id = desk.lease(1_000)
    entries = [an_entry(lease_id, 100, 70) for _ in range(3)]
    desk.writer.write(entries[:2])
    assert desk.writer.write(entries[:2]) == frozenset()
    assert desk.writer.write(entries) == {entries[2].row.id}
    assert desk.writer.write([*entries, *entries]) == frozenset()
    assert desk.leases() == {lease_id: 790}
    assert desk.counters() == desk.each(210, 0, 790, 0)
    assert (desk.one("select count(*) from exchange"), desk.one("select count(*) from body")) == (3, 6)


def test_leased_and_direct_exchanges_settle_in_one_batch(desk) -> None:
    """A direct hold gives back what it held; an intent holds nothing."""
    lease_id = desk.lease(1_000)
    leased, direct = an_entry(lease_id, 300, 200), an_entry(None, 500, 50)
    desk.intent(leased)
    desk.intent(direct)
    desk.conn.execute("update counter set held_nano = 500")
    desk.writer.write([direct, leased])
    assert desk.counters() == desk.each(250, 0, 800, 0)
    assert desk.leases() == {lease_id: 800}


def test_a_presumed_intent_is_paid_by_its_lease(desk) -> None:
    """Only while it stands; whoever presumes need not know of the lease, because the intent does."""
    lease_id = desk.lease(1_000, suspended=True)
    known, unknown, settled = (an_entry(lease_id, 300, 300) for _ in range(3))
    desk.intent(known)
    desk.intent(unknown)
    assert unknown.hold is not None
    forgetful = Entry(unknown.row, unknown.bodies, structs.replace(unknown.hold, lease_id=None), unknown.charge)
    assert desk.writer.write([known, forgetful, settled], presume=True) == {known.row.id, unknown.row.id}
    assert desk.leases() == {lease_id: 400}
    assert desk.counters() == desk.each(600, 0, 0, 400)
    assert desk.writer.write([known, forgetful], presume=True) == frozenset()


def test_a_row_without_a_hold_names_no_level(desk) -> None:
    row = a_row(an_op(), TENANT, outcome=Outcome.REFUSED)
    desk.writer.write([Entry(row, None, None, None)])
    assert desk.one("select levels from exchange") == []
    assert desk.counters() == {}


def test_a_worker_is_heard_while_its_writer_is_connected(desk, fresh_store) -> None:
    """The lock that says so is shared: a writer that replaces another need not wait for it."""
    conninfo = Store(fresh_store.url).conninfo(StoreRole.RECORDER)
    vault = Vault(Keyring((Kek("k", bytes(32)),), bytes(32)))
    writers = [BatchWriter(conninfo, vault, worker="w-1") for _ in range(2)]
    assert desk.one("select is_silent('w-1')")
    for writer in writers:
        writer.write([Entry(a_row(an_op(), TENANT), None, None, None)])
    for writer in writers:
        assert not desk.one("select is_silent('w-1')")
        writer.disconnect()
    for _ in range(100):  # the server takes a moment to notice
        if desk.one("select is_silent('w-1')"):
            return
    raise AssertionError("the lock outlived its connections")


def old_settle(desk: Desk, url: str, entries: Sequence[Entry], presume: bool) -> list[UUID]:
    """As a worker of the release before says it (migration 0004)."""
    said = [
        {
            "exchange": msgspec.to_builtins(entry.row, builtin_types=(UUID,), str_keys=True),
            "claims": msgspec.json.decode(claims_json(entry.hold.claims)),
            "charged_nano": entry.row.charged_nano,
            "tokens": 5,
            "counts": True,
        }
        for entry in entries
        if entry.hold is not None
    ]
    for entry in said:
        entry["exchange"] = msgspec.json.decode(msgspec.json.encode(entry["exchange"]))
    ids = [entry.row.id for entry in entries]
    with psycopg.connect(Store(url).conninfo(StoreRole.RECORDER), autocommit=True) as conn:
        found = conn.execute(
            "select settle(%s, %s, %s, null, %s, array['reply'], array[%s], array[%b]::bytea[], array[%b]::bytea[],"
            " array[false])",
            (TENANT, Jsonb(said), presume, ids[-1:], ids[0], b"n" * 12, b"sealed"),
        ).fetchone()
    assert found is not None
    return list(found[0])


def test_workers_of_the_release_before_still_settle(desk, fresh_store) -> None:
    """Between the migration and their restart, and their sweeper too, which knows nothing of leases."""
    lease_id = desk.lease(1_000)
    direct, orphan = an_entry(None, 500, 50), an_entry(lease_id, 300, 300)
    desk.intent(direct)
    desk.intent(orphan)
    desk.conn.execute("update counter set held_nano = 500")
    assert old_settle(desk, fresh_store.url, [direct], presume=False) == [direct.row.id]
    assert old_settle(desk, fresh_store.url, [direct], presume=False) == []
    assert desk.counters() == desk.each(50, 0, 1_000, 0)
    assert old_settle(desk, fresh_store.url, [direct, orphan], presume=True) == [orphan.row.id]
    assert desk.counters() == desk.each(350, 0, 700, 0)
    assert desk.leases() == {lease_id: 700}
    assert desk.one("select count(*) from body") == 2


ARRAYS = {
    "uuid": (arrays.uuids, [uuid7(1), None, uuid7(2)]),
    "bigint": (arrays.bigints, [0, -1, 2**63 - 1, -(2**63)]),
    "integer": (arrays.integers, [0, -1, 2**31 - 1]),
    "float8": (arrays.floats, [0.0, -1.5, 1e300]),
    "boolean": (arrays.booleans, [True, False]),
    "text": (arrays.texts, ["", '雪 \\ " {} ,', "x" * 70_000]),
    "bytea": (arrays.byteas, [b"", bytes(range(256)), b"x" * 70_000]),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_arrive_as_they_were(desk, kind) -> None:
    make, values = ARRAYS[kind]
    arrays.take_ready(desk.conn)
    for sent in (values, values[:1], []):
        found = desk.conn.execute("select %b, pg_typeof(%b)::text", (make(sent), make(sent))).fetchone()
        assert found == (sent, f"{'double precision' if kind == 'float8' else kind}[]")
    assert desk.conn.execute("select %b -> 'a'", (arrays.jsonb(b'{"a": [1, "b"]}'),)).fetchone() == ([1, "b"],)
    assert desk.conn.execute("select %b", (arrays.jsonbs([b"[1]", b'"b"']),)).fetchone() == ([[1], "b"],)
