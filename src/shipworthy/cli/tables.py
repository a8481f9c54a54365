"""Tables on a terminal: figures and ids are never cut; what does not fit makes the table wider than the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

WIDTH_MAX = 10_000
NAME_WIDTH_MAX = 24


def plain_table(**options: bool | str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, header_style="bold", **options)  # type: ignore[arg-type]


def add_names(table: Table, title: str, names: list[str], footer: str = "") -> None:
    """A column of names: they fold only beyond NAME_WIDTH_MAX letters."""
    longest = max(map(len, [title, footer, *names]))
    table.add_column(title, footer, overflow="fold", min_width=min(longest, NAME_WIDTH_MAX))


def add_figures(table: Table, title: str, figures: list[str], footer: str = "", *, left: bool = False) -> None:
    """A column of figures, ids or dates: whole, whatever the width."""
    longest = max(map(len, [footer, *figures, *title.split()]))
    table.add_column(title, footer, justify="left" if left else "right", min_width=longest)


def show(table: Table) -> None:
    from rich.console import Console
    from rich.measure import Measurement

    console = Console(highlight=False, emoji=False, markup=False)
    wide = console.options.update(width=WIDTH_MAX)
    console.width = max(console.width, Measurement.get(console, wide, table).minimum)
    console.print(table)
