"""``shipworthy check``: whether a manifest may be put in force, and everything that is wrong with it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from shipworthy.cli.options import EXIT_PROBLEM, Config, Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shipworthy.manifest.load import Loaded
    from shipworthy.manifest.problem import Problem


def register(app: typer.Typer) -> None:
    app.command("check")(check)


def check(
    config: Config = Path("shipworthy.yaml"),
    as_json: Json = False,
    schema: bool = typer.Option(
        False, "--schema", help="Print the manifest's JSON Schema for editors, and check nothing."
    ),
    no_secrets: bool = typer.Option(
        False, "--no-secrets", help="Accept references to variables and files that are not here, as in CI."
    ),
) -> None:
    """Check a manifest: every problem with file, line, what was said, what was wanted. Exit 1 when there is one."""
    if schema:
        _print_schema()
        return
    loaded, problems = checked(config, require_references=not no_secrets)
    if as_json:
        found = {
            "accepted": loaded is not None,
            "digest": loaded.snapshot.digest if loaded else None,
            "problems": [asdict(problem) for problem in problems],
        }
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _print_problems(problems)
        _print_verdict(config, loaded, problems)
    if loaded is None:
        raise typer.Exit(EXIT_PROBLEM)


def checked(config: Path, *, require_references: bool = True) -> tuple[Loaded | None, Sequence[Problem]]:
    """The manifest if it may be put in force, and every problem or warning of it."""
    from shipworthy.adapters.policy.cel import compile_condition
    from shipworthy.adapters.prices.table import price_of
    from shipworthy.manifest.load import load
    from shipworthy.manifest.problem import ManifestRefused
    from shipworthy.standard import PROVIDERS

    try:
        loaded = load(config, None, PROVIDERS, compile_condition, price_of, require_references=require_references)
    except ManifestRefused as refused:
        return None, refused.problems
    return loaded, loaded.warnings


def _print_schema() -> None:
    from shipworthy.manifest.schema import json_schema
    from shipworthy.standard import PROVIDERS

    typer.echo(json.dumps(json_schema(PROVIDERS), indent=2))


def _print_problems(problems: Sequence[Problem]) -> None:
    from shipworthy.manifest.problem import Severity

    for problem in problems:
        colour = "red" if problem.severity is Severity.PROBLEM else "yellow"
        key = f" {problem.path}" if problem.path else ""
        typer.echo(f"{problem.file}:{problem.line}: {typer.style(problem.severity, fg=colour, bold=True)}:{key}")
        for label, text in (
            ("", problem.what),
            ("said", problem.said),
            ("wanted", problem.wanted),
            ("hint", problem.hint),
        ):
            if text:
                typer.echo(f"  {label:<7} {text}" if label else f"  {text}")
        typer.echo()


def _print_verdict(config: Path, loaded: Loaded | None, problems: Sequence[Problem]) -> None:
    from shipworthy.manifest.problem import Severity

    wrong = sum(problem.severity is Severity.PROBLEM for problem in problems)
    counts = ", ".join(_count(n, word) for n, word in ((wrong, "problem"), (len(problems) - wrong, "warning")) if n)
    if loaded is None:
        typer.secho(f"{config} is refused: {counts}", fg="red", bold=True)
        return
    snapshot = loaded.snapshot
    held = ", ".join(
        _count(len(part), word)
        for part, word in (
            (snapshot.tenants, "tenant"), (snapshot.use_cases, "use case"), (snapshot.models, "model"),
            (snapshot.providers, "provider"),
        )
    )  # fmt: skip
    typer.secho(f"{config} is fine: {held}{f'; {counts}' if counts else ''}", fg="green", bold=True)
    typer.echo(f"digest {snapshot.digest}")


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
