"""The reckoning of benchmarks/money.py finds what is wrong: each of its checks can fail, and fails for nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MONTH = "2026-11"


@pytest.fixture(scope="module")
def books_room() -> Any:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import money_books
    finally:
        sys.path.remove(str(BENCHMARKS))
    return money_books


@pytest.fixture
def books(books_room: Any) -> Any:
    """Two requests that were served, one that a killed worker left, one refusal; all agrees."""
    line = books_room.Line("one", 100, 200, 250, 50, 1, "said", 4711)
    cost, held = line.cost_nano, 4 * line.cost_nano
    row = books_room.Row("one", "a", "chat", "served", "", False, held, cost, 0, MONTH, "reported", None, "L")
    rows = [
        row,
        replace(row, id="two", team="b", use_case="write"),
        replace(row, id="dead", outcome="failed", presumed=True, charged=held, basis=None),
        replace(row, id="no", outcome="refused", refusal="reserve.budget_exhausted", held=0, charged=0, basis=None),
    ]
    lines = [line, replace(line, id="two", asked_ns=150, ended_ns=260), replace(line, id="dead", ended="cut")]
    spent = {"tenant": 2 * cost + held, "team=a": cost + held, "use_case=chat": cost + held}
    return books_room.Books(
        rows={each.id: each for each in rows},
        twice=[],
        counters=[books_room.Standing(key, MONTH, 3 * held, nano, 0, 0, 0) for key, nano in spent.items()],
        log={each.id: each for each in lines},
        logged_twice=[],
        in_flight=0,
    )


def fire(room: Any, there_s: float = 60.0) -> Any:
    """Two kills; the connections of all three lines were the second victim's."""
    import money_fire

    return money_fire.Fire(
        kills=[money_fire.Kill(205, 1, 50.0), money_fire.Kill(210, 2, there_s)],
        sightings=[money_fire.Sighting(205, {4711: 2, 1: 1})],
    )


def test_what_agrees_is_found_right(books_room: Any, books: Any) -> None:
    found = books_room.reckon(books, fire(books_room), strict=True)
    assert found.wrong == []
    assert (found.admitted, found.compared, found.presumed, found.unreported) == (3, 2, 1, 0)
    assert found.compared_nano == sum(books.rows[each].charged for each in ("one", "two"))
    assert found.held_times == 4
    assert found.at_once == 3
    assert found.refused == {"reserve.budget_exhausted": 1}


def _row(books: Any, name: str, **changed: object) -> None:
    books.rows[name] = replace(books.rows[name], **changed)


def _counter(books: Any, **changed: object) -> None:
    books.counters[0] = replace(books.counters[0], **changed)


WRONG: dict[str, tuple[Callable[[Any], object], str]] = {
    "a nano-dollar too much in a row": (lambda b: _row(b, "one", charged=b.rows["one"].charged + 1), "logged"),
    "a counter that lost a nano-dollar": (lambda b: _counter(b, charged=b.counters[0].charged - 1), "counter"),
    "a row that is gone": (lambda b: b.rows.pop("one"), "have no row"),
    "money set aside for ever": (lambda b: _counter(b, suspended=1), "after all has ended"),
    "a place taken for ever": (lambda b: setattr(b, "in_flight", 1), "in flight"),
    "two rows of one exchange": (lambda b: b.twice.append("one"), "more than one row"),
    "sent twice": (lambda b: b.logged_twice.append("one"), "more than once"),
    "a charge for nothing": (lambda b: b.log.pop("two"), "never saw it"),
    "a presumption below what was held": (lambda b: _row(b, "dead", charged=1), "is presumed at 1"),
    "an overrun that is not told": (lambda b: _row(b, "one", held=1), "overrun 0"),
    "a cap that was passed": (lambda b: _counter(b, cap=1), "beyond the cap"),
    "an admission beyond a cap": (lambda b: _counter(b, cap=b.counters[0].charged), "an admission"),
    "a level without a counter": (lambda b: b.counters.pop(), "not of"),
}


@pytest.mark.parametrize("planted", WRONG)
def test_each_error_is_found(books_room: Any, books: Any, planted: str) -> None:
    plant, said = WRONG[planted]
    plant(books)
    found = books_room.reckon(books, fire(books_room), strict=True)
    assert [wrong for wrong in found.wrong if said in wrong], found.wrong


def test_a_lie_beyond_the_ceiling_of_a_dead_worker_is_counted(books_room: Any, books: Any) -> None:
    """Nobody heard the lie: it is no error of the books, but of an honest provider's line it would be."""
    lied = replace(books.log["dead"], input=2_500, output=500, factor=10)
    books.log["dead"] = lied
    found = books_room.reckon(books, fire(books_room), strict=True)
    assert found.wrong == []
    assert (found.presumed_short, found.presumed_short_nano) == (1, lied.cost_nano - books.rows["dead"].charged)
    books.log["dead"] = replace(lied, factor=1)
    assert books_room.reckon(books, fire(books_room), strict=True).wrong != []


def test_in_relaxed_a_lease_covers_its_presumed_rows_together(books_room: Any, books: Any) -> None:
    """What one of them lacks another has too much; when all together lack something, it is found."""
    dead, logged = books.rows["dead"], books.log["dead"].cost_nano
    books.rows["dead"] = replace(dead, charged=dead.charged - 1, held=dead.charged - 1)
    books.rows["late"] = replace(dead, id="late", charged=1, held=1)
    books.log["late"] = replace(books.log["dead"], id="late")
    found = books_room.reckon(books, fire(books_room), strict=False)
    assert found.wrong == []
    assert (found.presumed_less, found.presumed_less_nano) == (1, logged - 1)
    assert any("presumed at 1" in wrong for wrong in books_room.reckon(books, fire(books_room), strict=True).wrong)
    books.rows["late"] = replace(books.rows["late"], lease="another")
    found = books_room.reckon(books, fire(books_room), strict=False)
    assert found.wrong == [f"what was presumed on another is {logged - 1} less than the provider logged"]


def test_what_relaxed_lost_is_measured(books_room: Any, books: Any) -> None:
    """Beside the kill of the process that had asked, with its age and its price."""
    for place, standing in enumerate(books.counters):
        books.counters[place] = replace(standing, charged=standing.charged - books.rows["one"].charged)
    del books.rows["one"]
    found = books_room.reckon(books, fire(books_room, 3.0), strict=False)
    assert found.wrong == []
    assert found.lost == [books_room.Lost(1, books.log["one"].cost_nano, (210 - 100) / 1e6, 3.0)]
    elsewhere = fire(books_room)
    elsewhere.kills.pop()
    found = books_room.reckon(books, elsewhere, strict=False)
    assert "whoever asked for it was not killed" in found.wrong[0]


def test_the_provider_s_prices_are_the_manifest_s(books_room: Any) -> None:
    """The reckoning prices by itself, from the same figures."""
    text = (BENCHMARKS / "money.yaml").read_text()
    assert f"input_usd_per_mtok: {books_room.INPUT_USD_PER_MTOK}" in text
    assert f"output_usd_per_mtok: {books_room.OUTPUT_USD_PER_MTOK}" in text
    assert books_room.Line("x", 0, 0, 3, 1, 1, "said", 4711).cost_nano == 3_002 + 4_000
