"""The alerts that fired, as people see them: on the command line and over the admin API, each tenant's its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import typer
from typer.testing import CliRunner

from shipworthy.cli import cost
from shipworthy.control.alert_log import ALERTS_SHOWN_MAX, list_alerts
from shipworthy.kit.memory_alerts import RAISED_AT as AT
from shipworthy.kit.memory_alerts import an_alert
from shipworthy.kit.memory_plane import MemoryPlane, memory_plane
from shipworthy.model.alert import Delivery, Pace
from shipworthy.model.errors import Refusal
from shipworthy.model.op import Op
from shipworthy.model.reading import EVERY_TENANT, Authority
from shipworthy.ports import ControlPlane


@pytest.fixture
def memory() -> MemoryPlane:
    memory = memory_plane()
    memory.alerts.alerts += [
        an_alert(1, delivery=Delivery.DELIVERED, tries=1, last_status=200, last_reason="", ended_at=AT),
        an_alert(2, permille=955, key="end_user=\x1b[2Jeve"),
        an_alert(3, tenant="southwind", key="tenant", delivery=Delivery.NONE, tries=0, last_status=0, last_reason=""),
    ]
    return memory


@pytest.fixture
def cli(memory: MemoryPlane, monkeypatch: pytest.MonkeyPatch) -> object:
    @asynccontextmanager
    async def control_plane(config: object, observe: object) -> AsyncIterator[ControlPlane]:
        yield memory.plane

    monkeypatch.setattr("shipworthy.bootstrap.control_plane", control_plane)
    app = typer.Typer()
    cost.register(app)
    return lambda *words: CliRunner(env={"COLUMNS": "60"}).invoke(app, ["cost", "alerts", *words])


def test_what_fired_and_how_far_its_delivery_is(cli: object, memory: MemoryPlane) -> None:
    """Newest first, figures whole at any width, hostile names harmless; the read is on record."""
    told = cli()
    assert told.exit_code == 0, told.output
    lines = [line for line in told.stdout.splitlines() if "2026-06-15 12:00:00" in line]
    assert ["southwind" in lines[0], "95.5%" in lines[1], "delivered" in lines[2]] == [True] * 3
    assert "8.000000001" in lines[1]
    assert "10.000000000" in lines[1]
    assert "\x1b[2J" not in told.stdout
    assert [act.act for act in memory.acts.acts] == ["alerts.read"]


def test_as_json_and_of_one_tenant(cli: object) -> None:
    found = json.loads(cli("--json", "--tenant", "northwind").stdout)["alerts"]
    assert [alert["threshold"] for alert in found] == ["0.955", "0.8"]
    assert [alert["due_at"] is None for alert in found] == [False, True]
    assert found[0]["cap_nano"] == 10_000_000_000


def test_nothing_fired(monkeypatch: pytest.MonkeyPatch, memory: MemoryPlane, cli: object) -> None:
    memory.alerts.alerts.clear()
    assert cli().stdout == "No alert has fired.\n"


def test_a_tenants_administrator_sees_no_other_tenant(memory: MemoryPlane) -> None:
    async def read(scope: str, tenant: str = "") -> list[str]:
        op = Op.for_cli(lambda _: None)
        shown = await list_alerts(op, memory.alerts, memory.acts, Authority("ann", scope), tenant)
        return [alert.tenant for alert in shown.alerts]

    assert asyncio.run(read("northwind")) == ["northwind", "northwind"]
    assert asyncio.run(read(EVERY_TENANT, "southwind")) == ["southwind"]
    with pytest.raises(Refusal, match="other_tenant"):
        asyncio.run(read("northwind", "southwind"))
    memory.alerts.alerts += [an_alert(number) for number in range(10, 10 + 2 * ALERTS_SHOWN_MAX)]
    assert len(asyncio.run(read(EVERY_TENANT))) == ALERTS_SHOWN_MAX


@pytest.mark.parametrize(
    ("pace", "after_s"),
    [
        (Pace(0, 3_600), None),
        (Pace(1_000_000_000, 0), None),
        (Pace(1_999_999_999, 60), 60),
        (Pace(1, 3_600), None),  # far beyond the period
        (Pace(10**30, 1e-9), 0),
    ],
)
def test_when_a_budget_is_exhausted(pace: Pace, after_s: int | None) -> None:
    found = pace.exhausted_at(an_alert(1))
    assert (None if found is None else (found - AT).total_seconds()) == after_s


def test_a_spent_budget_is_exhausted_now() -> None:
    assert Pace(0, 0).exhausted_at(an_alert(1, charged_nano=10_000_000_000)) == AT


@pytest.mark.parametrize(("permille", "said"), [(1, "0.001"), (500, "0.5"), (955, "0.955"), (1000, "1")])
def test_a_threshold_is_said_as_the_manifest_may(permille: int, said: str) -> None:
    assert an_alert(1, permille=permille).threshold == said
