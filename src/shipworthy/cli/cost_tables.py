"""What ``cost reconcile`` found, as tables: only what differs, and what the figures leave out, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from shipworthy.cli import tables
from shipworthy.cli.token import plain

if TYPE_CHECKING:
    from shipworthy.control.reconcile import BalanceReport, DifferenceShown
    from shipworthy.control.usage_apply import AppliedReport
    from shipworthy.control.usage_compare import UsageLine, UsageReport

LINES_SHOWN = 200


def show_balance(found: BalanceReport) -> None:
    checked = f"{found.counters:,} counters and {found.paces:,} limits"
    behind = f"${found.charged_usd} charged by {found.exchanges:,} exchanges, counted at each of their levels"
    typer.echo(f"{checked}, against {behind}, with {_number(found.corrections, 'correction')},")
    typer.echo(f"{_number(found.holds, 'hold')} and {_number(found.leases, 'lease')}.")
    if found.unlevelled:
        told = f"{found.unlevelled:,} exchanges of ${found.unlevelled_usd} were recorded before levels were kept"
        typer.echo(f"{told}: which counters they are in, their rows do not say.")
    if found.unchecked:
        typer.echo(f"\nNot to be checked: {len(found.unchecked):,}")
        _differences(found.unchecked)
    if found.agree:
        typer.secho("They agree to the nano-dollar." if not found.unchecked else "All others agree.", fg="green")
        return
    typer.secho(f"\n{_number(len(found.differences), 'difference')}{' or more' if found.more else ''}", fg="red")
    _differences(found.differences)


def _differences(found: tuple[DifferenceShown, ...]) -> None:
    from rich.text import Text

    shown = found[:LINES_SHOWN]
    table = tables.plain_table()
    names = {
        "tenant": [plain(each.tenant) for each in shown],
        "level": [plain(each.level) for each in shown],
        "from": [f"{each.begins:%Y-%m-%d %H:%M}" if each.begins else "" for each in shown],
        "what": [each.what for each in shown],
    }
    figures = {
        "counter": ["none" if each.counter is None else _figure(each, each.counter) for each in shown],
        "behind it": [_figure(each, each.behind) for each in shown],
        "difference": [_figure(each, each.difference) for each in shown],
    }
    for title, cells in names.items():
        tables.add_names(table, title, cells)
    for title, cells in figures.items():
        tables.add_figures(table, title, cells)
    reasons = [each.excuse for each in shown]
    if any(reasons):
        tables.add_names(table, "why", reasons)
    for index, reason in enumerate(reasons):
        cells = [column[index] for column in (*names.values(), *figures.values())]
        table.add_row(*map(Text, [*cells, reason] if any(reasons) else cells))
    tables.show(table)
    if len(found) > LINES_SHOWN:
        typer.echo(f"… and {len(found) - LINES_SHOWN:,} more; --json has them all.")


def _figure(each: DifferenceShown, figure: int) -> str:
    from shipworthy.control.wording import usd

    return usd(figure) if each.money else f"{figure:,}"


def show_usage(found: UsageReport) -> None:
    span = f"{found.first} to {found.last}" if found.first != found.last else str(found.first)
    typer.secho(
        f"{plain(found.file)} ({found.format}) and the record of {plain(found.provider)}, {span}, UTC", dim=True
    )
    for name in found.names:
        said = f"{name.ours} ({name.how})" if name.ours != name.theirs else name.how
        typer.echo(f"  {plain(name.theirs)} → {plain(said)}")
    differing = [line for line in found.lines if not line.agrees]
    if found.agree:
        within = f" within {found.tolerance_percent} %" if found.tolerance_percent != "0" else ""
        typer.secho(f"All {len(found.lines):,} figures agree{within}.", fg="green")
    else:
        typer.secho(f"{len(differing):,} of {len(found.lines):,} figures differ", fg="red")
        _lines(differing)
    _apart(found)


def _lines(differing: list[UsageLine]) -> None:
    from rich.text import Text

    shown = differing[:LINES_SHOWN]
    table = tables.plain_table()
    tables.add_figures(table, "day", [str(line.day) for line in shown], left=True)
    tables.add_names(table, "model", [plain(line.model) for line in shown])
    tables.add_names(table, "what", [line.what for line in shown])
    for title in ("ours", "theirs", "difference"):
        tables.add_figures(table, title, [getattr(line, title) for line in shown])
    tables.add_names(table, "", [line.remark for line in shown])
    for line in shown:
        cells = (str(line.day), plain(line.model), line.what, line.ours, line.theirs, line.difference, line.remark)
        table.add_row(*map(Text, cells))
    tables.show(table)
    if len(differing) > LINES_SHOWN:
        typer.echo(f"… and {len(differing) - LINES_SHOWN:,} more; --json has them all.")


def _apart(found: UsageReport) -> None:
    if found.failed_requests:
        told = f"{_number(found.failed_requests, 'failed attempt')} of ${found.failed_usd}"
        typer.echo(f"Ours hold {told}, which the provider may have billed or not.")
    if found.counted_requests:
        typer.echo(f"Of {_number(found.counted_requests, 'request')} the provider reported no usage: ours is counted.")
    if found.presumed_exchanges:
        told = f"{_number(found.presumed_exchanges, 'exchange')} of ${found.presumed_usd}"
        typer.echo(f"Beside these, {told} are presumed: their worker died, and no provider is known of them.")
    if found.left_out:
        typer.echo(f"Left out: {_number(found.left_out, 'line')} of ${found.left_out_usd} that are no usage.")


def show_applied(done: AppliedReport) -> None:
    typer.echo(
        f"{_number(done.exchanges, 'exchange')} named: {done.agreed:,} agreed, {done.corrected:,} corrected by "
        f"${done.usd} in all, {done.known:,} by this file before, {done.failed:,} left as they are."
    )
    for each in done.not_applied:
        typer.secho(f"  {each.exchange_id}: {plain(each.reason)}", fg="red", err=True)


def _number(number: int, noun: str) -> str:
    from shipworthy.control.wording import counted

    return counted(number, noun)
