"""cost reconcile and cost correct on the command line: what is found, said and recorded, and which exit code tells what."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
import typer
from click.testing import Result
from msgspec.structs import replace
from typer.testing import CliRunner

from shipworthy.cli import cost
from shipworthy.control.audit import explain
from shipworthy.control.corrections import CorrectionAsked, correct
from shipworthy.control.shown import exchange_shown
from shipworthy.kit.memory_plane import MemoryPlane, memory_plane
from shipworthy.kit.rows import ARRIVED_UNIX_NS, refused, row
from shipworthy.model.books import Difference, Excuse, What
from shipworthy.model.errors import Refusal
from shipworthy.model.exchange import Outcome
from shipworthy.model.money import Basis, ChargeLine, Component
from shipworthy.model.op import Op
from shipworthy.model.reading import Authority
from shipworthy.model.route import Attempt
from shipworthy.ports import ControlPlane

PRESUMED = row(
    flags=("presumed",), outcome=Outcome.FAILED, attempts=(), charged_nano=5_000_000, model="", provider="",
    charge_lines=(ChargeLine(0, "", Component.REQUEST, 1, 5_000_000_000, 5_000_000, Basis.CEILING),),
)  # fmt: skip
HEAD = "date,model,requests,input_tokens,output_tokens,cost_usd"


@pytest.fixture
def memory() -> MemoryPlane:
    """Two served by gpt-4.1-mini for $0.00096 each, 1,200 tokens in and 300 out; one refused; one presumed."""
    return memory_plane(row(), row(tenant="southwind", arrived_unix_ns=ARRIVED_UNIX_NS + 1), refused(), PRESUMED)


@pytest.fixture
def cli(memory: MemoryPlane, monkeypatch: pytest.MonkeyPatch) -> object:
    @asynccontextmanager
    async def control_plane(config: object, observe: object) -> AsyncIterator[ControlPlane]:
        yield memory.plane

    monkeypatch.setattr("shipworthy.bootstrap.control_plane", control_plane)
    app = typer.Typer()
    cost.register(app)
    return lambda *words: CliRunner(env={"COLUMNS": "160"}).invoke(app, ["cost", *map(str, words)])


@pytest.fixture
def export(tmp_path: Path) -> object:
    def write(*lines: str) -> Path:
        path = tmp_path / "usage.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def said(result: Result, code: int) -> str:
    assert result.exit_code == code, (result.output, result.exception)
    return str(result.stdout)


# ------------------------------------------------------------------------------------------------ counters


def a_difference(**changes: object) -> Difference:
    found = Difference(
        tenant="northwind", level="team=support@month", what=What.CHARGED, begins=datetime(2026, 11, 1, tzinfo=UTC),
        ends=datetime(2026, 12, 1, tzinfo=UTC), counter=2_000_000_007, behind=2_000_000_000, exchanges=9,
    )  # fmt: skip
    return replace(found, **changes)


def test_books_that_agree(cli: object, memory: MemoryPlane) -> None:
    assert "agree to the nano-dollar" in said(cli("reconcile"), 0)
    assert json.loads(said(cli("reconcile", "--json"), 0))["agree"] is True
    assert [(act.act, act.tenant) for act in memory.acts.acts] == [("books.read", "")] * 2


def test_books_that_differ(cli: object, memory: MemoryPlane) -> None:
    """Level, period and both figures; exit code 1. What proves nothing stands apart and is no failure."""
    excused = a_difference(tenant="southwind", excuse=Excuse.BEFORE_LEVELS)
    memory.books.says = replace(memory.books.says, unlevelled=4, unlevelled_nano=9, differences=(excused,))
    told = said(cli("reconcile"), 0)
    assert "All others agree" in told
    assert "before levels were kept" in told
    gone = a_difference(counter=None, level="tenant@day", behind=7)
    places = a_difference(what=What.IN_FLIGHT, level="tenant", begins=None, ends=None, counter=3, behind=1)
    memory.books.says = replace(memory.books.says, differences=(a_difference(), gone, places, excused))
    told = said(cli("reconcile", "--since", "2026-11-01", "--tenant", "northwind"), 1)
    for part in (
        "team=support@month",
        "2026-11-01 00:00",
        "2.000000007",
        "2.000000000",
        "0.000000007",
        "none",
        "in flight",
    ):
        assert part in told
    shown = json.loads(said(cli("reconcile", "--json"), 1))
    assert [each["difference"] for each in shown["differences"]] == [7, -7, 2]
    assert len(shown["unchecked"]) == 1
    assert memory.acts.acts[1].facts == {"since": "2026-11-01T00:00:00+00:00"}


# ------------------------------------------------------------------------------------------------ a provider's export


def test_an_export_that_agrees(cli: object, export: object) -> None:
    file = export(HEAD, "2026-11-21,gpt-4.1-mini-2025-04-14,2,2400,600,0.00192")
    told = said(cli("reconcile", "--usage", file, "--provider", "openai"), 0)
    assert "All 4 figures agree" in told
    assert "gpt-4.1-mini-2025-04-14 → gpt-4.1-mini (by its dated snapshot)" in told
    assert "1 exchange of $0.005000000 are presumed" in told


def test_an_export_that_differs(cli: object, export: object, memory: MemoryPlane) -> None:
    """Model by model and figure by figure, what only one side knows too; a tolerance is said and meant."""
    file = export(HEAD, "2026-11-21,gpt-4.1-mini,2,2424,600,0.001939", "2026-11-21,gpt-9,1,10,10,0.5")
    words = ("reconcile", "--usage", file, "--provider", "openai")
    told = said(cli(*words), 1)
    assert "6 of 8 figures differ" in told
    assert "only they know of it" in told
    assert "0.000019" in told
    lines = {(line["model"], line["what"]): line for line in json.loads(said(cli(*words, "--json"), 1))["lines"]}
    assert lines["gpt-4.1-mini", "input tokens"]["difference"] == "24"
    assert lines["gpt-4.1-mini", "output tokens"]["agrees"] is True
    within = json.loads(said(cli(*words, "--tolerance-percent", "1.0", "--json"), 1))
    assert {line["model"] for line in within["lines"] if not line["agrees"]} == {"gpt-9"}
    joined = said(cli(*words, "--model", "gpt-9=gpt-4.1-mini", "--json"), 1)
    assert {line["model"] for line in json.loads(joined)["lines"]} == {"gpt-4.1-mini"}
    act = memory.acts.acts[0]
    assert (act.act, act.facts["provider"], act.facts["days"]) == ("books.read", "openai", "2026-11-21 to 2026-11-21")


def test_what_a_failed_attempt_may_have_cost_is_told_apart(cli: object, export: object, memory: MemoryPlane) -> None:
    failed = Attempt(0, "small", "openai", "gpt-4.1-mini", 0, 9, failure="broken", detail="", sent=True)
    lines = (ChargeLine(0, "small", Component.INPUT, 100, 400_000, 40_000, Basis.COUNTED),)
    memory.exchanges.rows.append(row(attempts=(failed,), charge_lines=lines, charged_nano=40_000))
    file = export(HEAD, "2026-11-21,gpt-4.1-mini,2,2400,600,0.00192")
    told = said(cli("reconcile", "--usage", file, "--provider", "openai"), 1)
    assert told.count("it agrees without our failed attempts") == 3
    assert "1 failed attempt of $0.000040000" in told
    file = export(HEAD, "2026-11-21,gpt-4.1-mini,3,2500,600,0.00196")
    said(cli("reconcile", "--usage", file, "--provider", "openai"), 0)


def test_our_rounding_is_no_difference(cli: object, export: object, memory: MemoryPlane) -> None:
    """Each of our charge lines is rounded to the nano-dollar once; the provider's sum may not be."""
    answered = Attempt(0, "small", "openai", "gpt-4.1-mini", 0, 9, first_token_ns=1)
    lines = (ChargeLine(0, "small", Component.INPUT, 3, 37_500, 113, Basis.REPORTED),)
    memory.exchanges.rows[:] = [row(attempts=(answered,), charge_lines=lines, charged_nano=113) for _ in range(10)]
    for theirs, code in (("0.000001125", 0), ("0.00000113", 0), ("0.000001124", 1), ("0.00000111", 1)):
        file = export("date,model,cost_usd", f"2026-11-21,gpt-4.1-mini,{theirs}")
        said(cli("reconcile", "--usage", file, "--provider", "openai"), code)


def test_days_may_be_narrowed(cli: object, export: object) -> None:
    file = export(HEAD, "2026-11-20,gpt-4.1-mini,9,9,9,9", "2026-11-21,gpt-4.1-mini,2,2400,600,0.00192")
    words = ("reconcile", "--usage", file, "--provider", "openai", "--since", "2026-11-21")
    said(cli(*words), 0)
    assert "none of which" in cli(*words, "--until", "2026-11-21").stderr


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("--usage", "FILE"), 2, "--provider"),
        (("--usage", "FILE", "--provider", "nobody"), 2, "'nobody' is not one of"),
        (("--usage", "FILE", "--provider", "openai", "--tenant", "northwind"), 2, "all tenants"),
        (("--usage", "FILE", "--provider", "openai", "--apply"), 2, "--because"),
        (("--usage", "FILE", "--provider", "openai", "--apply", "--because", "x"), 2, "names our exchanges"),
        (("--usage", "FILE", "--provider", "openai", "--tolerance-percent", "101"), 2, "within 0 and 100"),
        (("--usage", "FILE", "--provider", "openai", "--model", "x"), 2, "THEIRS=OURS"),
        (("--usage", "FILE", "--provider", "openai", "--columns", "x"), 2, "columns"),
        (("--usage", "missing.csv", "--provider", "openai"), 2, "does not exist"),
        (("--provider", "openai"), 2, "--usage"),
        (("--since", "yesterday"), 2, "no date"),
    ],
)
def test_what_cannot_be_done_is_said(
    cli: object, export: object, words: tuple[str, ...], code: int, reason: str
) -> None:
    file = export(HEAD, "2026-11-21,gpt-4.1-mini,2,2400,600,0.00192")
    result = cli("reconcile", *(str(file) if word == "FILE" else word for word in words))
    assert result.exit_code == code, result.output
    assert reason in " ".join(result.stderr.replace("│", " ").split())


def test_every_bad_line_is_named(cli: object, export: object) -> None:
    file = export(HEAD, "2026-11-21,gpt-4.1-mini,2,2400,600,0.00192", "x", "2026-11-21,\x1b[2J,one,1,1,1")
    result = cli("reconcile", "--usage", file, "--provider", "openai")
    assert result.exit_code == 2
    assert f"{file}:3: 1 fields where the heading has 6" in result.stderr
    assert f"{file}:4: requests: 'one' is no number" in result.stderr
    assert result.stdout == ""


# ------------------------------------------------------------------------------------------------ corrections


def test_a_correction_is_made_once(cli: object, memory: MemoryPlane) -> None:
    spent = memory.exchanges.rows[0]
    words = ("correct", spent.id, "--usd", "-0.0001", "--because", "a credit of theirs", "--source", "invoice 2026-11")
    told = said(cli(*words), 0)
    assert "It comes to $0.000860000 now" in told
    assert "added on" in said(cli(*words), 0)
    again = json.loads(said(cli(*words, "--token", "once more", "--json"), 0))
    assert (again["added"], again["charged_nano"]) == (True, 760_000)
    first, second = memory.corrections.made
    assert (first.nano, first.reason, first.source, first.provider) == (
        -100_000, "a credit of theirs", "invoice 2026-11", "openai",
    )  # fmt: skip
    assert second.token == "once more"
    assert [act.act for act in memory.acts.acts if act.act == "cost.correct"] == ["cost.correct"] * 2
    assert all(act.actor.startswith("cli:") for act in memory.acts.acts)


@pytest.mark.parametrize(
    ("usd", "because", "code", "reason"),
    [
        ("-0.00097", "x", 1, "nothing costs less than nothing"),
        ("0", "x", 2, "other than 0"),
        ("1e12", "x", 2, "other than 0"),
        ("0.0000000001", "x", 2, "nine decimals"),
        ("a lot", "x", 2, "no number"),
        ("1", "  ", 2, "needs its reason"),
        ("1", "x" * 501, 2, "500"),
        ("1", "a\x1b[2J", 2, "printable"),
    ],
)
def test_corrections_that_are_refused(
    cli: object, memory: MemoryPlane, usd: str, because: str, code: int, reason: str
) -> None:
    result = cli("correct", memory.exchanges.rows[0].id, "--usd", usd, "--because", because)
    assert result.exit_code == code, result.output
    assert reason in result.stderr
    assert memory.corrections.made == []


def test_a_correction_is_told_beside_its_row(cli: object, memory: MemoryPlane) -> None:
    """audit show and the API say what the row says, what was corrected, why and by whom, and what it comes to."""
    spent = memory.exchanges.rows[0]
    said(cli("correct", spent.id, "--usd", "-0.0001", "--because", "a credit", "--source", "invoice 2026-11"), 0)
    said(cli("correct", spent.id, "--usd", "0.5", "--because", "a fee"), 0)
    made = memory.corrections.made
    shown = exchange_shown(spent, made)
    assert (shown.charged_usd, shown.comes_to_usd) == ("0.000960000", "0.500860000")
    (money,) = [section.sentences for section in shown.explained if section.title == "Money"]
    assert "took $0.000100000 off what the row says: a credit (invoice 2026-11)." in money[-3]
    assert "added $0.500000000 to what the row says: a fee." in money[-2]
    assert money[-1] == "With 2 corrections it comes to $0.500860000."
    assert exchange_shown(spent, ()).explained == explain(spent)


def test_a_report_says_what_of_it_is_corrections(cli: object, memory: MemoryPlane) -> None:
    span = ("report", "--since", "2026-11-21", "--until", "2026-11-23")
    assert "corrections" not in said(cli(*span), 0)
    said(cli("correct", memory.exchanges.rows[0].id, "--usd", "-0.0001", "--because", "a credit"), 0)
    told = said(cli(*span), 0)
    assert "-0.000100000" in told
    assert "0.006820000" in told
    total = json.loads(said(cli(*span, "--json"), 0))["total"]
    assert (total["charged_nano"], total["corrected_nano"]) == (6_820_000, -100_000)


def test_a_correction_of_nothing_known(cli: object) -> None:
    assert cli("correct", uuid4(), "--usd", "1", "--because", "x").exit_code == 1
    assert cli("correct", "no-id", "--usd", "1", "--because", "x").exit_code == 2


def test_a_tenants_administrator_corrects_nothing(memory: MemoryPlane) -> None:
    """Whoever administers one tenant could free its own budget."""
    plane, ann = memory.plane, Authority("ann", "northwind")
    asked = CorrectionAsked(exchange_id=memory.exchanges.rows[0].id, nano=-1, reason="x")

    async def story() -> None:
        with pytest.raises(Refusal, match="operators_only"):
            await correct(Op.for_cli(plane.observe), plane.exchanges, plane.corrections, plane.acts, ann, asked)

    asyncio.run(story())


# ------------------------------------------------------------------------------------------------ corrections from an export


def test_an_export_that_names_exchanges_is_applied(cli: object, export: object, memory: MemoryPlane) -> None:
    """Tokens are priced as their row was, the presumed becomes what it was, and afterwards both agree to the nano-dollar."""
    first, second, _, presumed = memory.exchanges.rows
    lines = [
        f"2026-11-21,gpt-4.1-mini,1,1200,300,{first.id}",
        f"2026-11-21,gpt-4.1-mini,1,1201,299,{second.id}",
        f"2026-11-21,gpt-4.1-mini,1,1000,100,{presumed.id}",
    ]
    file = export("date,model,requests,input_tokens,output_tokens,client_request_id", *lines)
    words = ("reconcile", "--usage", file, "--provider", "openai")
    said(cli(*words), 1)
    found = json.loads(said(cli(*words, "--apply", "--because", "their log", "--json"), 1))
    assert found["applied"]["not_applied"] == [
        {"exchange_id": str(presumed.id), "reason": "no price is known of gpt-4.1-mini; export it with its cost"}
    ]
    assert (found["applied"]["agreed"], found["applied"]["corrected"]) == (1, 1)
    (made,) = memory.corrections.made
    assert made.nano == 400 - 1_600
    assert [(line.component, line.quantity, line.amount_nano) for line in made.lines] == [
        (Component.INPUT, 1, 400),
        (Component.OUTPUT, -1, -1_600),
    ]


def test_an_export_with_costs_is_applied(cli: object, export: object, memory: MemoryPlane) -> None:
    first, second, _, presumed = memory.exchanges.rows
    lines = [
        f"2026-11-21,gpt-4.1-mini,1,1200,300,0.00096,{first.id}",
        f"2026-11-21,gpt-4.1-mini,1,1200,310,0.0009,{second.id}",
        f"2026-11-21,gpt-4.1-mini,1,1000,100,0.00056,{presumed.id}",
    ]
    file = export("date,model,requests,input_tokens,output_tokens,cost_usd,exchange_id", *lines)
    words = ("reconcile", "--usage", file, "--provider", "openai", "--apply", "--because", "their log")
    told = said(cli(*words), 0)
    assert "3 exchanges named: 1 agreed, 2 corrected by $-0.004500000 in all" in told
    assert "All 4 figures agree" in told
    comes_to = {made.exchange_id: made.nano for made in memory.corrections.made}
    assert comes_to == {second.id: -60_000, presumed.id: 560_000 - 5_000_000}
    assert "3 agreed, 0 corrected" in said(cli(*words), 0)
    acts = [act.act for act in memory.acts.acts]
    assert (acts.count("cost.apply"), acts.count("cost.correct")) == (2, 2)


def test_what_is_not_ours_is_left(cli: object, export: object) -> None:
    file = export("date,model,cost_usd,exchange_id", f"2026-11-21,gpt-4.1-mini,0.00192,{uuid4()}")
    result = cli("reconcile", "--usage", file, "--provider", "openai", "--apply", "--because", "their log")
    assert "we have no such exchange" in result.stderr
    said(result, 1)
