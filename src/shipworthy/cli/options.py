"""Options that verbs share, and how a verb says that it could not do its work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from shipworthy.model.errors import StartRefused

EXIT_PROBLEM = 1
EXIT_USAGE = 2

Config = Annotated[Path, typer.Option("-c", "--config", help="The manifest.", dir_okay=False)]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def fail(refused: StartRefused) -> NoReturn:
    """Says what was wrong, where, and what to do; exit code 1."""
    typer.secho(f"{refused.code}: {refused.message}", fg="red", err=True)
    if refused.hint:
        typer.echo(f"  → {refused.hint}", err=True)
    raise typer.Exit(EXIT_PROBLEM)
