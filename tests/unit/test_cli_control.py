"""key, audit and cost on the command line: what is shown, what is on record, and which exit code tells what."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from shipworthy.cli import audit, cost, key
from shipworthy.kit.memory_plane import MemoryPlane, memory_plane
from shipworthy.kit.rows import ARRIVED_UNIX_NS, refused, row
from shipworthy.model import service_key
from shipworthy.model.errors import StartRefused, StoreUnavailable
from shipworthy.ports import ControlPlane

SPAN = ("--since", "2026-11-21", "--until", "2026-11-23", "--zone", "Europe/Berlin")


@pytest.fixture
def memory() -> MemoryPlane:
    return memory_plane(
        row(),
        refused(arrived_unix_ns=ARRIVED_UNIX_NS + 1, team="=HYPERLINK(1)", subject="eve\x1b[2J"),
        row(tenant="southwind", arrived_unix_ns=ARRIVED_UNIX_NS + 2, overrun_nano=7),
    )


@pytest.fixture
def cli(memory: MemoryPlane, monkeypatch: pytest.MonkeyPatch) -> object:
    @asynccontextmanager
    async def control_plane(config: object, observe: object) -> AsyncIterator[ControlPlane]:
        yield memory.plane

    monkeypatch.setattr("shipworthy.bootstrap.control_plane", control_plane)
    app = typer.Typer()
    for verb in (key, audit, cost):
        verb.register(app)
    return lambda *words, columns="160": CliRunner(env={"COLUMNS": columns}).invoke(app, list(words))


def ok(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def test_a_key_is_made_shown_once_listed_and_revoked(cli: object, memory: MemoryPlane) -> None:
    made = cli("key", "create", "--tenant", "northwind", "--role", "backend", "--expires", "12w", "--name", "ci")
    secret = service_key.parse(ok(made).strip())
    assert secret is not None
    assert secret.secret not in made.stderr
    listed = ok(cli("key", "list"))
    assert secret.id in listed
    assert "active" in listed
    assert secret.secret not in listed
    assert "revoked" in ok(cli("key", "revoke", secret.id))
    assert json.loads(ok(cli("key", "list", "--json")))["keys"][0]["state"] == "revoked"
    acts = [(act.act, act.tenant) for act in memory.acts.acts]
    assert acts == [("key.create", "northwind"), ("keys.read", ""), ("key.revoke", "northwind"), ("keys.read", "")]
    assert all(act.actor.startswith("cli:") for act in memory.acts.acts)


def test_a_key_as_json(cli: object) -> None:
    words = ("--tenant", "northwind", "--role", "platform", "--use-case", "support", "--use-case", "faq", "--json")
    made = json.loads(ok(cli("key", "create", *words)))
    assert made["key"]["use_cases"] == ["support", "faq"]
    assert made["key"]["expires_at"] is None
    assert service_key.parse(made["secret"]) is not None


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("key", "create", "--tenant", "northwind", "--role", "nobody"), 2),
        (("key", "create", "--tenant", "northwind", "--role", "backend", "--expires", "soon"), 2),
        (("key", "create", "--role", "backend"), 2),
        (("key", "revoke", "0" * 16), 1),
        (("audit", "show", "no-id"), 2),
        (("audit", "show", str(uuid4())), 1),
        (("cost", "report", "--by", "colour"), 2),
        (("cost", "report", "--zone", "Mars"), 2),
        (("cost", "report", "--since", "2026-11-02", "--until", "2026-11-01"), 2),
    ],
)
def test_exit_codes(cli: object, words: tuple[str, ...], code: int) -> None:
    result = cli(*words)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr != ""


def test_an_exchange_is_told(cli: object, memory: MemoryPlane) -> None:
    served, hostile = memory.exchanges.rows[0], memory.exchanges.rows[1]
    told = ok(cli("audit", "show", str(served.id)))
    assert "served" in told
    assert "alice asked the use case support" in told
    assert memory.acts.acts[-1].act == "exchange.read"
    assert "\x1b[2J" not in ok(cli("audit", "show", str(hostile.id)))
    shown = json.loads(ok(cli("audit", "show", str(served.id), "--json")))
    assert shown["exchange"]["id"] == str(served.id)
    assert shown["explained"][0]["title"] == "In short"


def test_cost_as_table_json_and_csv_agree_to_the_nano_dollar(cli: object, memory: MemoryPlane) -> None:
    expected = sum(each.charged_nano for each in memory.exchanges.rows)
    table = ok(cli("cost", "report", "--by", "team", *SPAN))
    assert "0.001920000" in table
    report = json.loads(ok(cli("cost", "report", "--by", "team", *SPAN, "--json")))
    assert report["total"]["charged_nano"] == expected
    assert sum(line["charged_nano"] for line in report["lines"]) == expected
    lines = list(csv.DictReader(io.StringIO(ok(cli("cost", "report", "--by", "team", *SPAN, "--format", "csv")))))
    assert sum(int(line["charged_nano"]) for line in lines) == expected
    assert {line["name"] for line in lines} == {"support", "'=HYPERLINK(1)"}
    assert memory.acts.acts[-1].facts["by"] == "team"


def test_cost_of_one_tenant_and_of_an_empty_time(cli: object) -> None:
    report = json.loads(ok(cli("cost", "report", "--by", "principal", "--tenant", "southwind", *SPAN, "--json")))
    assert report["total"]["tenant"] == "southwind"
    assert report["total"]["overrun_usd"] == "0.000000007"
    assert "Nothing happened" in ok(cli("cost", "report", "--since", "2001-01-01", "--until", "2001-01-02"))


@pytest.mark.parametrize(
    "reason", [StartRefused("store.not_running", "It does not run.", "Start it."), StoreUnavailable("away")]
)
def test_a_store_that_is_away_is_said_and_ends_with_1(
    cli: object, monkeypatch: pytest.MonkeyPatch, reason: Exception
) -> None:
    @asynccontextmanager
    async def control_plane(config: object, observe: object) -> AsyncIterator[ControlPlane]:
        await asyncio.sleep(0)
        raise reason
        yield

    monkeypatch.setattr("shipworthy.bootstrap.control_plane", control_plane)
    result = cli("key", "list")
    assert result.exit_code == 1
    assert "store." in result.stderr


def test_no_figure_of_the_table_is_ever_cut(cli: object, memory: MemoryPlane) -> None:
    """On a narrow terminal names fold; a sum that lost a digit would be a lie."""
    memory.exchanges.rows.append(row(tenant="a-tenant-with-a-very-long-name", charged_nano=123_456_789_012_345_678))
    table = ok(cli("cost", "report", "--by", "principal", *SPAN, columns="60"))
    assert "123456789.014265678" in table
    assert table.count("123456789.012345678") == 1
    assert "…" not in table
    keys = ("--tenant", "northwind", "--role", "backend", "--name", "x" * 60)
    secret = service_key.parse(ok(cli("key", "create", *keys)).strip())
    assert secret is not None
    assert secret.id in ok(cli("key", "list", columns="40"))
