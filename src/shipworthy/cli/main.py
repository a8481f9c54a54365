"""``shipworthy``: one file a verb; a verb's libraries are loaded when it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from shipworthy import __version__

app = typer.Typer(
    name="shipworthy",
    help="Take a GenAI prototype and run it in production: governed, recorded, affordable.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"shipworthy {__version__} (Python {sys.version.split()[0]})")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """The road: init → check → serve → watch it: cost, audit, doctor."""


def verbs(said: list[str]) -> tuple[Callable[[typer.Typer], None], ...]:
    """All of them; ``serve`` alone where it is asked for, so that no other keeps a server from starting."""
    from shipworthy.cli import serve

    if said[:1] == ["serve"]:
        return (serve.register,)
    from shipworthy.cli import audit, check, cost, demo, doctor, init, key, migrate, token

    several = (demo, init, check, serve, migrate, token, key, cost, audit, doctor)
    return tuple(verb.register for verb in several)


for register in verbs(sys.argv[1:]):
    register(app)
