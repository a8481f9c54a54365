"""``shipworthy cost alerts``: which thresholds of budgets were passed, and how far their delivery is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shipworthy.cli import tables
from shipworthy.cli.key import say_json
from shipworthy.cli.options import Config, Json
from shipworthy.cli.plane import with_plane
from shipworthy.cli.token import plain

if TYPE_CHECKING:
    from shipworthy.control.alert_log import AlertShown, AlertsShown
    from shipworthy.model.op import Op
    from shipworthy.model.reading import Authority
    from shipworthy.ports import ControlPlane

COLOURS = {"none": "dim", "pending": "yellow", "delivered": "green", "failed": "red"}


def alerts(
    tenant: Annotated[str, typer.Option(help="Only this tenant's.")] = "",
    config: Config = Path("shipworthy.yaml"),
    as_json: Json = False,
) -> None:
    """List budget alerts that fired, newest first, with their delivery: tries, last status. The read is recorded."""

    async def story(op: Op, plane: ControlPlane, holder: Authority) -> AlertsShown:
        from shipworthy.control.alert_log import list_alerts

        return await list_alerts(op, plane.alerts, plane.acts, holder, tenant)

    found = with_plane(config, story)
    if as_json:
        say_json(found)
    else:
        show_table(found.alerts)


def show_table(found: tuple[AlertShown, ...]) -> None:
    from rich.text import Text

    from shipworthy.model.ledger import level_words

    if not found:
        typer.echo("No alert has fired.")
        return
    table = tables.plain_table()
    times = [f"{alert.raised_at:%Y-%m-%d %H:%M:%S}" for alert in found]
    named = {
        "tenant": [plain(alert.tenant) for alert in found],
        "level": [plain(level_words(alert.level)) for alert in found],
    }
    figures = {
        "passed": [f"{float(alert.threshold):.1%}" for alert in found],
        "charged USD": [alert.charged_usd for alert in found],
        "cap USD": [alert.cap_usd for alert in found],
    }
    tables.add_figures(table, "raised (UTC)", times, left=True)
    for title, names in named.items():
        tables.add_names(table, title, names)
    for title, cells in figures.items():
        tables.add_figures(table, title, cells)
    tables.add_figures(table, "per", [alert.period for alert in found], left=True)
    tables.add_figures(table, "delivery", [alert.delivery for alert in found], left=True)
    tables.add_figures(table, "tries", [str(alert.tries) for alert in found])
    tables.add_names(table, "last", [_last(alert) for alert in found])
    rows = zip(found, times, *named.values(), *figures.values(), strict=True)
    for alert, time, *cells in rows:
        state = Text(alert.delivery, style=COLOURS[alert.delivery])
        table.add_row(time, *map(Text, cells), alert.period, state, str(alert.tries), Text(_last(alert)))
    tables.show(table)


def _last(alert: AlertShown) -> str:
    if not alert.tries:
        return ""
    return alert.last_reason or (str(alert.last_status) if alert.last_status else "in flight")
