"""``shipworthy cost reconcile`` and ``cost correct``: the books checked, and what an exchange cost put right."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn
from uuid import UUID

import typer

from shipworthy.cli.key import say_json
from shipworthy.cli.options import EXIT_PROBLEM, EXIT_USAGE, Config, Json
from shipworthy.cli.plane import with_plane
from shipworthy.cli.token import plain, usage

if TYPE_CHECKING:
    from shipworthy.control.corrections import Corrected
    from shipworthy.control.reconcile import BalanceReport
    from shipworthy.control.usage_apply import AppliedReport
    from shipworthy.control.usage_compare import UsageAsked, UsageReport
    from shipworthy.control.usage_file import UnreadableUsage, UsageFile
    from shipworthy.model.op import Op
    from shipworthy.model.reading import Authority
    from shipworthy.ports import ControlPlane

PROGRESS_S = 2.0
"""Nobody is shown progress of what is done sooner."""


class DecimalMark(StrEnum):
    POINT = "point"
    COMMA = "comma"


MARKS = {None: "", DecimalMark.POINT: ".", DecimalMark.COMMA: ","}


def register(cost: typer.Typer) -> None:
    """Adds the two verbs to the group ``cost``."""
    cost.command("reconcile")(reconcile)
    cost.command("correct")(correct)


def correct(
    exchange_id: Annotated[str, typer.Argument(metavar="ID", help="The x-shipworthy-request-id of the answer.")],
    usd: Annotated[str, typer.Option(help="By how much, signed: -0.0123 makes it cheaper.", metavar="AMOUNT")],
    because: Annotated[str, typer.Option(help="The reason; it is kept with the correction.")],
    source: Annotated[str, typer.Option(help="What says so, such as `invoice 2026-10`.")] = "",
    token: Annotated[str, typer.Option(help="Tells apart what is otherwise the same, and said twice on purpose.")] = "",
    config: Config = Path("shipworthy.yaml"),
    as_json: Json = False,
) -> None:
    """Add a correction beside a row of the record. Counters of its periods move with it; saying it twice adds nothing."""
    from shipworthy.control.figures import nano_of

    asked_id = an_id(exchange_id)
    try:
        nano = nano_of(usd)
    except ValueError as wrong:
        usage(f"--usd {wrong}")

    async def story(op: Op, plane: ControlPlane, holder: Authority) -> Corrected:
        from shipworthy.control.corrections import CorrectionAsked
        from shipworthy.control.corrections import correct as add

        asked = CorrectionAsked(exchange_id=asked_id, nano=nano, reason=because, source=source, token=token)
        return await add(op, plane.exchanges, plane.corrections, plane.acts, holder, asked)

    made = with_plane(config, story)
    if as_json:
        say_json(made)
        return
    if made.added:
        typer.echo(f"{made.correction.exchange_id} is corrected by ${made.correction.usd}")
    else:
        said = "To add it once more, say it with another --token."
        typer.echo(f"That was added on {made.correction.at} already, and nothing is added now. {said}")
    levels = ", ".join(map(plain, made.correction.levels)) or "no budget's counter"
    typer.echo(f"It comes to ${made.charged_usd} now; moved: {levels}.")


def reconcile(
    usage_file: Annotated[
        Path | None,
        typer.Option(
            "--usage",
            help="A provider's usage or cost export in CSV, to compare the record with.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    provider: Annotated[str, typer.Option(help="Whose export it is, by its name in the manifest.")] = "",
    columns: Annotated[str, typer.Option(help="Where the file has what: date=Day,model=SKU,cost_usd=Total.")] = "",
    model: Annotated[
        list[str] | None, typer.Option(help="THEIRS=OURS: a name of the file as our upstream; may be said again.")
    ] = None,
    decimal: Annotated[DecimalMark | None, typer.Option(help="The file's decimal mark.")] = None,
    tolerance_percent: Annotated[str, typer.Option(help="Differences up to this many per cent agree.")] = "0",
    apply: Annotated[
        bool, typer.Option("--apply", help="Correct the exchanges that the file names, to what it says of them.")
    ] = False,
    because: Annotated[str, typer.Option(help="With --apply: the reason, kept with each correction.")] = "",
    source: Annotated[str, typer.Option(help="With --apply: what says so, such as `invoice 2026-10`.")] = "",
    tenant: Annotated[str, typer.Option(help="Without --usage: only this tenant's counters.")] = "",
    since: Annotated[str, typer.Option(help="From that UTC day on; counters: periods that end after it.")] = "",
    until: Annotated[str, typer.Option(help="With --usage: before that UTC day.")] = "",
    config: Config = Path("shipworthy.yaml"),
    as_json: Json = False,
) -> None:
    """Check the books: every counter against its rows, or the record against a provider's export. 1 = they differ."""
    if usage_file is None:
        if provider or columns or model or apply or until:
            usage("--provider, --columns, --model, --apply and --until belong to --usage FILE")
        _balance(config, tenant, a_day("since", since), as_json)
    if not provider or tenant:
        usage("--usage needs --provider, and compares all tenants: the provider's bill knows none")
    if apply and not because.strip():
        usage("--apply needs --because: every correction keeps its reason")
    asked = _asked(provider, tolerance_percent, since, until, model or [])
    file = _read(usage_file, columns, MARKS[decimal])
    _usage(config, file, asked, (because, source) if apply else None, as_json)


def _balance(config: Path, tenant: str, since: date | None, as_json: bool) -> NoReturn:
    async def story(op: Op, plane: ControlPlane, holder: Authority) -> BalanceReport:
        from datetime import UTC, datetime

        from shipworthy.control.reconcile import balance

        begin = datetime(since.year, since.month, since.day, tzinfo=UTC) if since else None
        async with patiently("counters and rows"):
            return await balance(op, plane.books, plane.acts, plane.snapshot(), holder, tenant, begin)

    found = with_plane(config, story)
    if as_json:
        say_json(found)
    else:
        from shipworthy.cli.cost_tables import show_balance

        show_balance(found)
    raise typer.Exit(0 if found.agree else EXIT_PROBLEM)


def _usage(
    config: Path, file: UsageFile, asked: UsageAsked, applied_with: tuple[str, str] | None, as_json: bool
) -> NoReturn:
    async def story(op: Op, plane: ControlPlane, holder: Authority) -> tuple[AppliedReport | None, UsageReport]:
        from shipworthy.control.reconcile import names_of, usage_report

        done = None
        if applied_with is not None:
            from shipworthy.control.usage_apply import ApplyAsked, apply_usage

            names = await names_of(plane.books, plane.snapshot(), file, asked)
            wanted = ApplyAsked(reason=applied_with[0], source=applied_with[1])
            snapshot, progress = plane.snapshot(), Progress(len(file.requests))
            done = await apply_usage(
                op,
                plane.exchanges,
                plane.corrections,
                plane.acts,
                snapshot,
                holder,
                file,
                names,
                asked,
                wanted,
                progress,
            )
        async with patiently("the record and the export"):
            return done, await usage_report(op, plane.books, plane.acts, plane.snapshot(), holder, file, asked)

    done, found = with_plane(config, story)
    if as_json:
        say_json({"applied": done, "usage": found} if done else found)
    else:
        from shipworthy.cli.cost_tables import show_applied, show_usage

        if done is not None:
            show_applied(done)
        show_usage(found)
    raise typer.Exit(0 if found.agree and not (done and done.failed) else EXIT_PROBLEM)


@asynccontextmanager
async def patiently(what: str) -> AsyncGenerator[None, None]:
    """Says on standard error that it is at work, for whom it takes longer than two seconds."""

    async def tell() -> None:
        began = time.monotonic()
        while True:
            await asyncio.sleep(PROGRESS_S)
            typer.secho(f"comparing {what} for {time.monotonic() - began:.0f} s", dim=True, err=True)

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        telling.cancel()


class Progress:
    """How far it is, on standard error, once a second from the third second on."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._next_s = time.monotonic() + PROGRESS_S

    def __call__(self, done: int) -> None:
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + 1.0
            typer.secho(f"{done:,} of {self._total:,} exchanges", dim=True, err=True)


def _asked(provider: str, percent: str, since: str, until: str, models: list[str]) -> UsageAsked:
    from shipworthy.control.figures import exact
    from shipworthy.control.usage_compare import UsageAsked

    try:
        tolerance = exact(percent)
    except ValueError as wrong:
        usage(f"--tolerance-percent {wrong}")
    if not 0 <= tolerance <= 100:
        usage(f"--tolerance-percent {percent} is not within 0 and 100")
    names = {}
    for said in models:
        theirs, equals, ours = said.rpartition("=")
        if not equals or not theirs or not ours:
            usage(f"--model {said!r}: say THEIRS=OURS")
        names[theirs] = ours
    return UsageAsked(
        provider=provider,
        tolerance_percent=tolerance,
        since=a_day("since", since),
        until=a_day("until", until),
        names=names,
    )


def _read(path: Path, columns: str, mark: str) -> UsageFile:
    from shipworthy.control.usage_file import UnreadableUsage, read_usage
    from shipworthy.control.usage_formats import columns_said
    from shipworthy.model.errors import Refusal

    try:
        with path.open("rb") as file:
            return read_usage(file, path.name, columns_said(columns), mark)
    except UnreadableUsage as unreadable:
        _name_lines(unreadable, path)
    except Refusal as refusal:
        usage(refusal.message)
    except OSError as wrong:
        usage(f"{path} cannot be read: {wrong.strerror}")


def _name_lines(unreadable: UnreadableUsage, path: Path) -> NoReturn:
    for bad in unreadable.bad:
        typer.secho(f"{path}:{bad.line}: {plain(bad.reason)}", fg="red", err=True)
    if unreadable.count > len(unreadable.bad):
        typer.echo(f"… and {unreadable.count - len(unreadable.bad):,} more lines", err=True)
    typer.echo("  → Nothing was compared: a file that is read in part would be taken for less usage.", err=True)
    raise typer.Exit(EXIT_USAGE)


def a_day(option: str, said: str) -> date | None:
    try:
        return date.fromisoformat(said) if said else None
    except ValueError:
        usage(f"--{option} {said!r} is no date like 2026-11-01")


def an_id(said: str) -> UUID:
    try:
        return UUID(said)
    except ValueError:
        usage(f"{said!r} is no id: it looks like 019a8c2e-7b41-7d3a-9c05-3f2b1a0e9d48")
