"""``shipworthy audit show ID``: one exchange, with the whole decision in plain words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from shipworthy.cli.key import say_json
from shipworthy.cli.options import Config, Json
from shipworthy.cli.plane import with_plane
from shipworthy.cli.token import plain, usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shipworthy.control.audit import Section
    from shipworthy.model.correction import Correction
    from shipworthy.model.exchange import Row
    from shipworthy.model.op import Op
    from shipworthy.model.reading import Authority
    from shipworthy.ports import ControlPlane

WIDTH_MAX = 100
OUTCOME_COLOURS = {"served": "green", "refused": "yellow", "cut": "red", "failed": "red", "abandoned": "magenta"}


def register(app: typer.Typer) -> None:
    audit = typer.Typer(help="The record: what happened, and why.", no_args_is_help=True)
    audit.command("show")(show)
    audit.callback()(lambda: None)  # a group of one verb stays a group
    app.add_typer(audit, name="audit")


def show(
    exchange_id: Annotated[str, typer.Argument(metavar="ID", help="The x-shipworthy-request-id of the answer.")],
    config: Config = Path("shipworthy.yaml"),
    as_json: Json = False,
) -> None:
    """Tell one exchange: who asked, why this model or why not, what it cost, where the time went. The read is recorded."""
    try:
        asked = UUID(exchange_id)
    except ValueError:
        usage(f"{exchange_id!r} is no id: it looks like 019a8c2e-7b41-7d3a-9c05-3f2b1a0e9d48")

    async def story(op: Op, plane: ControlPlane, holder: Authority) -> tuple[Row, Sequence[Correction]]:
        from shipworthy.control.reading import read_corrected

        return await read_corrected(op, plane.exchanges, plane.corrections, plane.acts, holder, asked)

    row, made = with_plane(config, story)
    from shipworthy.control.shown import exchange_shown

    shown = exchange_shown(row, made)
    if as_json:
        say_json(shown)
    else:
        tell(row, shown.explained)


def tell(row: Row, sections: tuple[Section, ...]) -> None:
    """In paragraphs as wide as reads well. What a client sent is shown without anything that a terminal would obey."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False, emoji=False, markup=False)
    console.width = min(console.width, WIDTH_MAX)
    colour = OUTCOME_COLOURS[row.outcome.value]
    console.print(Text.assemble((f" {row.outcome.value} ", f"bold reverse {colour}"), " ", (str(row.id), "dim")))
    for section in sections:
        console.print(Text(f"\n{section.title}", style="bold"))
        for sentence in section.sentences:
            console.print(Padding(Text(plain(sentence)), (0, 0, 0, 2), expand=False))
