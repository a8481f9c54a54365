"""``shipworthy cost report``: what was spent, over any period in any zone, exact to the nano-dollar."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shipworthy.cli import cost_pauses, cost_reconcile, tables
from shipworthy.cli.alerts import alerts
from shipworthy.cli.key import say_json
from shipworthy.cli.options import Config, Json
from shipworthy.cli.plane import with_plane
from shipworthy.cli.token import plain
from shipworthy.model.reading import By

if TYPE_CHECKING:
    from shipworthy.control.finops import CostReport, CostShown
    from shipworthy.model.op import Op
    from shipworthy.model.reading import Authority
    from shipworthy.ports import ControlPlane

COUNTS = ("exchanges", "served", "refused", "cut", "failed", "abandoned", "input_tokens", "output_tokens")


class Format(StrEnum):
    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def register(app: typer.Typer) -> None:
    cost = typer.Typer(help="What was spent.", no_args_is_help=True)
    cost.command("report")(report)
    cost_reconcile.register(cost)
    cost_pauses.register(cost)
    cost.command("alerts")(alerts)
    cost.callback()(lambda: None)  # a group of one verb stays a group
    app.add_typer(cost, name="cost")


def report(
    by: Annotated[By, typer.Option(help="What it is told apart by.")] = By.USE_CASE,
    since: Annotated[str, typer.Option(help="From then on: 2026-11-01, 2026-11-01T08:00, 36h, 7d, 4w ago.")] = "",
    until: Annotated[str, typer.Option(help="Before then; nothing = now.")] = "",
    period: Annotated[str, typer.Option(help="The running hour, day, week, month or year, instead.")] = "",
    zone: Annotated[str, typer.Option(help="The time zone of these, such as Europe/Berlin.")] = "UTC",
    tenant: Annotated[str, typer.Option(help="Only this tenant.")] = "",
    form: Annotated[Format, typer.Option("--format", help="CSV is safe to open in a spreadsheet.")] = Format.TABLE,
    config: Config = Path("shipworthy.yaml"),
    as_json: Json = False,
) -> None:
    """Sum the record. Without a time it is the running month. Totals equal the rows; the read is recorded."""

    async def story(op: Op, plane: ControlPlane, holder: Authority) -> CostReport:
        from datetime import UTC, datetime

        from shipworthy.control.finops import cost_report, span_of, zone_of

        now = datetime.fromtimestamp(op.clock.unix_ns() // 1_000_000_000, tz=UTC)
        span = span_of(since, until, period, zone_of(zone), now)
        return await cost_report(op, plane.exchanges, plane.acts, holder, by, span, zone, tenant)

    found = with_plane(config, story)
    if as_json or form is Format.JSON:
        say_json(found)
    elif form is Format.CSV:
        from shipworthy.control.finops import as_csv

        typer.echo(as_csv(found), nl=False)
    else:
        show_table(found)


def show_table(found: CostReport) -> None:
    from rich.text import Text

    typer.secho(f"{found.since} to {found.until} ({plain(found.zone)})", dim=True)
    if not found.lines:
        typer.echo("Nothing happened in that time.")
        return
    table = tables.plain_table(show_footer=True, footer_style="bold")
    counts = [name for name in COUNTS if name in ("exchanges", "served") or getattr(found.total, name)]
    tables.add_names(table, "tenant", [plain(line.tenant) for line in found.lines])
    if found.by is not By.TENANT:
        tables.add_names(table, found.by.value, [_name(line) for line in found.lines], "total")
    for name in counts:
        total = f"{getattr(found.total, name):,}"  # the longest figure of its column
        tables.add_figures(table, name.replace("_", " "), [total], total)
    tables.add_figures(table, "USD", [found.total.charged_usd], found.total.charged_usd)
    if found.total.overrun_nano:
        tables.add_figures(table, "of it overrun", [found.total.overrun_usd], found.total.overrun_usd)
    if _corrected(found):
        corrected = [line.corrected_usd for line in found.lines]
        tables.add_figures(table, "of it corrections", corrected, found.total.corrected_usd)
    for line in found.lines:
        table.add_row(*map(Text, _cells(line, found, counts)))
    tables.show(table)


def _cells(line: CostShown, found: CostReport, counts: list[str]) -> list[str]:
    cells = [plain(line.tenant)]
    if found.by is not By.TENANT:
        cells.append(_name(line))
    cells += [f"{getattr(line, name):,}" for name in counts]
    cells.append(line.charged_usd)
    if found.total.overrun_nano:
        cells.append(line.overrun_usd)
    if _corrected(found):
        cells.append(line.corrected_usd)
    return cells


def _corrected(found: CostReport) -> bool:
    return any(line.corrected_nano for line in found.lines)


def _name(line: CostShown) -> str:
    return plain(line.name) or "(none)"
