"""``shipworthy init``: a first manifest, made from what is here."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shipworthy.cli.options import Json, fail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shipworthy.cli.init_search import Found

FILE_NAME = "shipworthy.yaml"


def register(app: typer.Typer) -> None:
    app.command("init")(init)


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="Where shipworthy.yaml is written.", file_okay=False)
    ] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace a manifest that is already there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a commented manifest that passes `check`: from keys in the environment and model servers on this machine."""
    from shipworthy.cli.check import checked
    from shipworthy.cli.init_search import CHILD, search
    from shipworthy.cli.init_text import manifest_text, slug
    from shipworthy.manifest.load import environment
    from shipworthy.model.errors import StartRefused

    target = folder / FILE_NAME
    found = search(environment()) or [CHILD]
    try:
        _write(target, manifest_text(slug(target.absolute().parent.name, "shipworthy"), found), force=force)
    except StartRefused as refused:
        fail(refused)
    loaded, problems = checked(target)
    if loaded is None:
        worst = str(problems[0]) if problems else "unknown"
        fail(StartRefused("init.refused", f"the manifest was written, but it is refused: {worst}", "shipworthy check"))
    if as_json:
        typer.echo(
            json.dumps({"manifest": str(target), "found": [provider.name for provider in found], "next": _next(target)})
        )
    else:
        _say(target, found)


def _write(target: Path, text: str, *, force: bool) -> None:
    """Writes the file; never over another unless ``force``, and then whole or not at all."""
    from shipworthy.model.errors import StartRefused

    if target.exists() and not force:
        raise StartRefused(
            "init.exists", f"{target} is already there", "shipworthy check reads it; --force replaces it"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if force:
            draft = target.with_name(f".{target.name}.{os.getpid()}")
            draft.write_text(text, encoding="utf-8")
            draft.replace(target)
        else:
            with target.open("x", encoding="utf-8") as stream:
                stream.write(text)
    except FileExistsError as reason:
        raise StartRefused("init.exists", f"{target} is already there", "--force replaces it") from reason
    except OSError as reason:
        why = reason.strerror or type(reason).__name__
        raise StartRefused("init.unwritable", f"{target} cannot be written: {why}", "choose another folder") from reason


def _say(target: Path, found: Sequence[Found]) -> None:
    for provider in found:
        what = f"{provider.variable} is set" if provider.variable else provider.base_url or "nothing else was found"
        models = ", ".join(model.upstream for model in provider.models)
        typer.echo(f"found {provider.label} ({what}): {models}")
    typer.secho(f"wrote {target}", fg="green", bold=True)
    typer.echo("next:")
    for line in _next(target):
        typer.echo(f"  {line}")


def _next(target: Path) -> list[str]:
    where = "" if target == Path(FILE_NAME) else f" -c {shlex.quote(str(target))}"
    return [
        f"shipworthy check{where}",
        f"shipworthy serve{where}",
        f"shipworthy token mint{where} --tenant main --subject me --groups developers",
    ]
