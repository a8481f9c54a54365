"""A batch's rows travel by columns: whatever they have in common or of their own, each comes back as it was said."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import get_type_hints

import msgspec
import psycopg
import pytest
from msgspec import structs
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from shipworthy.adapters.store import columns as travelling
from shipworthy.adapters.store.batch import BatchWriter
from shipworthy.adapters.store.keyring import Kek, Keyring
from shipworthy.adapters.store.ledger import claims_json
from shipworthy.adapters.store.pool import Store, StoreRole
from shipworthy.adapters.store.rows import COLUMNS, clean, row_of
from shipworthy.adapters.store.vault import Vault
from shipworthy.kit import rows
from shipworthy.kit.builders import a_charge, a_claim, an_estimate
from shipworthy.model.exchange import Bodies, Row
from shipworthy.model.ledger import Hold, Standing
from shipworthy.model.money import Basis, Usage
from shipworthy.model.op import Step, uuid7
from shipworthy.model.route import Attempt
from shipworthy.ports import Entry

OWN_PARAMETERS = {"tenant", "id", "arrived_unix_ns", "charged_nano", "lease_id"}  # not by columns.py's lists
HOSTILE = (
    "nul \0 inside",
    "lone \ud800 surrogate",
    "\\u0000",
    '","tokens":0,"cost_nano":0,"refused":""',
    "line\nfeed\r\x85\u2028",
)
MS = 1_000_000
HINTS = get_type_hints(Row)


class Record:
    """A store that is written to as the recorder does, and read as an owner may."""

    def __init__(self, conn: psycopg.Connection[tuple[object, ...]], writer: BatchWriter) -> None:
        self.conn = conn
        self.writer = writer

    def rows(self) -> dict[object, Row]:
        names = SQL(", ").join(map(Identifier, COLUMNS))
        cursor = self.conn.cursor(row_factory=dict_row)
        found = cursor.execute(SQL("select {} from exchange").format(names)).fetchall()
        return {record["id"]: row_of(record) for record in found}

    def column(self, query: str) -> list[object]:
        return [row[0] for row in self.conn.execute(query.encode()).fetchall()]


@pytest.fixture
def record(fresh_store) -> Iterator[Record]:
    vault = Vault(Keyring((Kek("k", bytes(32)),), bytes(32)))
    writer = BatchWriter(Store(fresh_store.url).conninfo(StoreRole.RECORDER), vault)
    options = "-c search_path=shipworthy,public"
    with psycopg.connect(fresh_store.superuser_url, autocommit=True, options=options) as conn:
        yield Record(conn, writer)
    writer.disconnect()


def entries(*said: Row) -> list[Entry]:
    return [Entry(structs.replace(row, id=uuid7(place * MS)), None, None, None) for place, row in enumerate(said, 1)]


def test_every_field_travels_once() -> None:
    """A new field of Row that no list names would be lost: here, before it is."""
    lists = (travelling.ALIKE, travelling.WEIGHED, travelling.TEXTS, travelling.DOCUMENTS, travelling.FIGURES)
    named = [name for names in lists for name in names]
    assert len(named) == len(set(named))
    assert set(named) | OWN_PARAMETERS == set(COLUMNS)


def test_rows_of_any_mixture_come_back_as_they_were(record) -> None:
    draw = Random(7)
    said = [rows.row(), rows.refused(), rows.row(), rows.row(usage=None, passage_ids=("p1",), cut=("capped",))]
    for seed in range(120):
        row = draw.choice(said)
        changes: dict[str, object] = {name: f"{name}-{draw.randrange(3)}" for name in draw.sample(travelling.TEXTS, 2)}
        changes |= {name: draw.randrange(2**62) for name in draw.sample(travelling.FIGURES, 3)}
        changes["candidates"] = tuple(structs.replace(each, score=draw.random()) for each in row.candidates)
        changes["team"] = f"team-{seed % 5}"
        changes["lease_id"] = draw.choice([None, uuid7(seed)])
        said.append(structs.replace(row, **changes))
    written = entries(*said)
    assert record.writer.write(written) == {entry.row.id for entry in written}
    assert record.rows() == {entry.row.id: entry.row for entry in written}


def test_what_types_say_by_themselves_is_not_stored(record) -> None:
    """A text that looks like it, quotes and all, is a text."""
    unsaid = {name: text.decode() for name, text in travelling.UNSAID.items()}
    steps = (
        Step("a", 1, 2),
        Step(unsaid["steps"], 3, 4, 5),
        Step("b", 5, 6, 0, 0, unsaid["steps"]),
        Step("c", 7, 8, 0, 1),
    )
    attempts = (
        Attempt(1, unsaid["attempts"], "p", "u", 1, 2),
        Attempt(2, "m", "p", "u", 1, 2, sent=False, usage=Usage(7)),
    )
    usages = (Usage(1, 2), Usage(1, 2, basis=Basis.COUNTED), Usage(1, 2, images=3), Usage(), None)
    written = entries(*(rows.row(steps=steps, attempts=attempts, usage=usage) for usage in usages))
    record.writer.write(written)
    assert record.rows() == {entry.row.id: entry.row for entry in written}
    kept = record.conn.execute("select steps, attempts, usage from exchange order by id limit 1").fetchone()
    assert kept is not None
    assert kept[0][:2] == [
        {"stage": "a", "start_ns": 1, "duration_ns": 2},
        msgspec.to_builtins(steps[1]),
    ]
    assert kept[1][0].keys() == msgspec.to_builtins(attempts[0]).keys() - {"detail", "sent", "usage"}
    assert kept[1][1] == msgspec.to_builtins(attempts[1])
    assert kept[2] == {"input": 1, "output": 2, "basis": "reported"}


def test_defaults_are_what_is_left_out() -> None:
    """The texts are those of the types, now and after their next change."""
    for name, said in (
        ("steps", Step("s", 1, 2)),
        ("attempts", Attempt(1, "m", "p", "u", 1, 2)),
        ("usage", Usage(1, 2)),
    ):
        text = msgspec.json.encode(said)
        shorter = text.replace(travelling.UNSAID[name], b"")
        assert len(shorter) == len(text) - len(travelling.UNSAID[name])
        assert msgspec.json.decode(shorter, type=type(said)) == said


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_cannot_be_stored_costs_only_its_own_row(record, hostile) -> None:
    """In every text of a row, wherever it travels; its neighbours are as they were."""

    def spoiled(value: object) -> object:
        match value:
            case str():
                return hostile
            case list() | tuple():
                return [spoiled(each) for each in value]
            case dict():
                return {key: spoiled(each) for key, each in value.items()}
        return value

    plain = rows.row(passage_ids=("p",), cut=("c",), flags=("f",), end_user="e", refusal_detail="\\u0000 spelled out")
    kept = {"tenant", "id", "lease_id", "outcome", "usage", "charge_lines"}  # of closed sets of words
    bad = {name: spoiled(value) for name, value in msgspec.to_builtins(plain).items() if name not in kept}
    worse = structs.replace(plain, **{name: msgspec.convert(bad[name], HINTS[name]) for name in bad})
    written = entries(plain, worse, plain)
    record.writer.write(written)
    found = record.rows()
    assert [found[entry.row.id] for entry in written[::2]] == [entry.row for entry in written[::2]]
    stored = (
        clean(msgspec.to_builtins(written[1].row)) if hostile in HOSTILE[:2] else msgspec.to_builtins(written[1].row)
    )
    assert found[written[1].row.id] == msgspec.convert(stored, Row)


def test_a_row_has_the_levels_of_its_hold(record) -> None:
    """Those with a budget, in their order; other lists of the same batch do not meddle, nor do rows without a hold."""
    lists = [(a_claim("team=a", 10), a_claim("limits", requests=5), a_claim("tenant", 20)), (a_claim("b", requests=1),)]
    holds = [Hold(uuid7(n * MS), "northwind", an_estimate(5), lists[n % 2], Standing()) for n in range(1, 7)]
    written = [Entry(rows.row(id=hold.id, charged_nano=1), None, hold, a_charge(hold, 1)) for hold in holds]
    written.append(Entry(rows.row(id=uuid7(9 * MS)), None, None, None))
    record.writer.write(written)
    budgeted = [f"{claim.key}@{claim.period}" for claim in lists[0] if claim.cap_nano >= 0]
    assert len(budgeted) == 2
    assert record.column("select levels from exchange order by id") == [[], budgeted] * 3 + [[]]


def test_direct_holds_go_with_their_rows_and_give_back(record) -> None:
    """Many at once and one by one, said twice, some of them new: counted once, released once."""
    claims = (a_claim("tenant", 10**6),)
    holds = [Hold(uuid7(n * MS), "northwind", an_estimate(100), claims, Standing()) for n in range(1, 41)]
    for hold in holds:
        record.conn.execute(
            "insert into hold (tenant, id, arrived_unix_ns, claims, amount_nano, tokens, paced_s, worker, expires_at,"
            " intent) values (%s, %s, 1, %s::jsonb, 100, 1, 0, 'w', now(), '')",
            (hold.tenant, hold.id, claims_json(claims)),
        )
    record.conn.execute(
        "insert into counter (tenant, key, period, period_start, cap_nano, held_nano) values (%s, %s, %s, %s, %s, %s)",
        ("northwind", claims[0].key, claims[0].period, claims[0].period_start, 10**6, 4_000),
    )
    written = [
        Entry(rows.row(id=hold.id, charged_nano=7), Bodies(b"q", b"", False), hold, a_charge(hold, 7)) for hold in holds
    ]
    assert len(record.writer.write(written[:20])) == 20
    assert record.writer.write(written[:20]) == frozenset()
    assert record.writer.write(written[10:30]) == {entry.row.id for entry in written[20:30]}
    assert record.writer.write(written[25:], presume=True) == {entry.row.id for entry in written[30:]}
    assert record.column("select count(*) from hold") == [0]
    assert record.conn.execute("select charged_nano, held_nano from counter").fetchall() == [(280, 0)]
    assert record.column("select count(*) from body where part = 'request'") == [40]
    assert record.column(
        "select count(*) from exchange e join body b on b.exchange_id = e.id where sha256(b.ciphertext) = e.request_sha256"
        " and e.reply_sha256 is null"
    ) == [40]


def test_a_plan_from_when_there_were_no_holds_reads_no_others_later(record) -> None:
    """The writer's connection lives for days, and its plans with it."""
    claims = (a_claim("tenant", 10**6),)
    holds = [Hold(uuid7(n * MS), "northwind", an_estimate(1), claims, Standing()) for n in range(1, 41)]
    written = [Entry(rows.row(id=hold.id, charged_nano=1), None, hold, a_charge(hold, 1)) for hold in holds]
    record.writer.write(written[:20])
    record.conn.execute(
        "insert into hold (tenant, id, arrived_unix_ns, claims, amount_nano, tokens, paced_s, worker, expires_at, intent)"
        " select 'northwind', gen_random_uuid(), 1, '[]', 0, 0, 0, 'w', now(), '' from generate_series(1, 3000)"
    )
    before = read_of_holds(record)
    record.writer.write(written[20:])
    assert read_of_holds(record) - before <= 20
    assert record.column("select count(*) from hold") == [3_000]


def read_of_holds(record: Record) -> int:
    """How many entries of its indexes and rows of its own anybody read so far, once the writer has said so."""
    with record.writer._connected() as conn:
        conn.execute("select pg_stat_force_next_flush()")
    [count] = record.column(
        "select (i.entries + t.seq_tup_read)::int from pg_stat_user_tables t, (select sum(idx_tup_read) as entries"
        " from pg_stat_user_indexes where relname = 'hold') i where t.relname = 'hold'"
    )
    assert isinstance(count, int)
    return count
