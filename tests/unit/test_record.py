"""record: what is kept for repeats of a request, on every way that an exchange may end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from shipworthy.kit.builders import a_charge, an_estimate, an_op
from shipworthy.kit.calls import a_chat
from shipworthy.model.chat import Event
from shipworthy.model.errors import Refusal, StoreUnavailable
from shipworthy.model.exchange import Exchange, Outcome, Received
from shipworthy.model.identity import Considered, Principal
from shipworthy.model.ledger import Hold, Standing
from shipworthy.model.observation import Ended, Failed, StoreDegraded
from shipworthy.model.policy import Bodies, Mode
from shipworthy.ports import Entry, Stored
from shipworthy.stages import row as rows
from shipworthy.stages.record import LATER_BYTES_MAX, make_record


class Recorder:
    def __init__(self) -> None:
        self.entries: list[Entry] = []

    async def record(self, entry: Entry) -> None:
        self.entries.append(entry)

    def enqueue(self, entry: Entry) -> None:
        self.entries.append(entry)


class Repeats:
    def __init__(self) -> None:
        self.finished: list[tuple[str, Stored | None]] = []
        self.away = False

    async def finish(self, op: Any, tenant: str, scope: str, key: str, stored: Stored | None) -> None:
        if self.away:
            raise StoreUnavailable("store.connection: gone")
        self.finished.append((key, stored))


class World:
    def __init__(self, bytes_max: int = 0, *, strict: bool = True) -> None:
        self.observed: list[Any] = []
        self.recorder, self.repeats = Recorder(), Repeats()
        snapshot: Any = SimpleNamespace(
            environment="test", region="", digest="d", strict=strict, bodies=Bodies(bytes_max=bytes_max)
        )
        recorder: Any = self.recorder
        repeats: Any = self.repeats
        self.left: list[Any] = []
        ledger: Any = SimpleNamespace(leave=self.left.append)
        self.record = make_record(snapshot, recorder, ledger, repeats, lambda row: None)
        self.x = Exchange(an_op(self.observed), idempotency_key="key-1")
        self.x.principal = Principal("northwind", "ada")
        self.x.request = a_chat()
        self.x.grant = SimpleNamespace(  # type: ignore[assignment]
            principal=self.x.principal, end_user="", considered=Considered(), mode=Mode.ENFORCE
        )

    def served(self, payload: bytes) -> None:
        x = self.x
        x.hold = Hold(x.op.id, "northwind", an_estimate(1_000), (), Standing())
        x.charge = a_charge(x.hold, 10)
        model = SimpleNamespace(name="m", provider=SimpleNamespace(name="p"))
        x.reply = SimpleNamespace(model=model, stream=False, source=SimpleNamespace(value="model"))  # type: ignore[assignment]
        x.received.payloads, x.received.payload_bytes = [payload], len(payload)
        x.received.kept_bytes_max = 1_000
        x.outcome = Outcome.SERVED

    def run(self) -> World:
        async def scenario() -> None:
            if (recording := self.record(self.x.op, self.x)) is not None:
                await recording

        asyncio.run(scenario())
        return self


@pytest.mark.parametrize("code", ["reserve.requests_limit", "reserve.store_unavailable"])
def test_a_refusal_before_money_was_held_frees_the_key(code: str) -> None:
    """A retry after the limit must run: its key would else be in flight for a quarter of an hour."""
    world = World()
    world.x.outcome, world.x.refusal = Outcome.REFUSED, Refusal(code, level="tenant")
    assert world.run().repeats.finished == [("key-1", None)]


def test_an_answer_is_kept_for_repeats_also_where_no_bodies_are_kept() -> None:
    world = World(bytes_max=0)
    world.served(b"{}")
    kept = world.run().repeats.finished[0][1]
    assert kept is not None and kept.body == b"{}"
    assert world.recorder.entries[0].bodies is None


def test_a_recorded_answer_is_given_though_its_repeat_cannot_be_kept() -> None:
    """It is charged by now: refusing it would make the client pay twice."""
    world = World()
    world.served(b"{}")
    world.repeats.away = True
    world.run()
    assert [row.where for row in world.observed if isinstance(row, StoreDegraded)] == ["repeats"]


@pytest.fixture
def defect(monkeypatch: pytest.MonkeyPatch) -> None:
    """No row can be made."""
    monkeypatch.setattr(rows, "_steps", lambda x: 1 // 0)


@pytest.mark.usefixtures("defect")
def test_a_defect_in_the_row_of_an_answer_that_was_given_costs_its_details_not_its_charge() -> None:
    world = World(bytes_max=1_000, strict=False)
    world.served(b"{}")
    [entry] = world.run().recorder.entries
    row = entry.row
    assert (row.id, row.tenant, row.outcome) == (world.x.op.id, "northwind", "served")
    assert row.flags == ("record_incomplete",)
    assert (row.charged_nano, row.held_nano, row.charge_lines) == (10, 1_000, world.x.charge.lines)
    assert entry.bodies is None
    [failed] = [seen for seen in world.observed if isinstance(seen, Failed)]
    assert (failed.where, failed.exchange_id) == ("record", world.x.op.id_text)
    assert "ZeroDivisionError" in failed.traceback


@pytest.mark.usefixtures("defect")
def test_under_strict_a_defect_in_the_row_still_refuses_the_answer() -> None:
    """Its row is made before the answer is given, so nothing is lost by saying no."""
    world = World()
    world.served(b"{}")
    [entry] = world.run().recorder.entries
    with pytest.raises(ZeroDivisionError):
        entry.made()


def test_who_hammers_on_a_spent_budget_fills_no_store() -> None:
    """The row says it all: nothing was asked of anybody."""
    kept = {}
    for code in ("reserve.budget_exhausted", "authorize.hosted_tool"):
        world = World(bytes_max=1_000)
        world.x.outcome, world.x.refusal = Outcome.REFUSED, Refusal(code, level="tenant", period="day", tool="t")
        kept[code] = world.run().recorder.entries[0].bodies is not None
    assert kept == {"reserve.budget_exhausted": False, "authorize.hosted_tool": True}


def test_what_a_provider_says_without_end_makes_no_endless_row() -> None:
    received = Received()
    for _ in range(1_000):
        received.note(Event(b"x", finish=((0, "stop" * 1_000),)), b"x", 1)
    assert len(received.finish) == 64
    assert max(map(len, received.finish)) == 64


def test_a_downgrade_can_be_filtered_by_level() -> None:
    """One flag a level, however many models it left out."""
    world = World()
    world.served(b"answer")
    world.x.hold.uncovered = {"dear": "use_case=faq", "dearer": "use_case=faq", "cheap": "tenant"}
    world.x.hold.estimated_nano = 7
    (entry,) = world.run().recorder.entries
    assert entry.row.flags[-2:] == ("downgraded:use_case=faq", "downgraded:tenant")
    assert (entry.row.estimated_nano, entry.row.held_nano) == (7, 1_000)


def test_what_was_served_is_made_when_it_is_written_and_says_how_it_was_when_it_ended() -> None:
    """Behind the answer the client may leave, which is nobody's concern by then."""
    world = World(bytes_max=1_000)
    world.served(b"answer")
    (entry,) = world.run().recorder.entries
    (ended,) = [each for each in world.observed if isinstance(each, Ended)]
    world.x.op.left = True
    assert entry.row.flags == ()
    assert entry.row.duration_ns == pytest.approx(ended.duration_ms * 1e6)
    assert entry.bodies is not None and entry.bodies.reply == b"answer"
    assert entry.body_bytes == len(entry.bodies.request) + len(entry.bodies.reply)
    assert entry.row is entry.row, "made once"


def test_what_a_large_request_was_parsed_into_does_not_wait_for_the_writer() -> None:
    world = World(bytes_max=1_000)
    world.x.request = a_chat("long " * LATER_BYTES_MAX)
    world.served(b"answer")
    (entry,) = world.run().recorder.entries
    assert entry._make is None
    assert entry.bodies is not None and entry.bodies.truncated
