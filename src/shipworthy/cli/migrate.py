"""``shipworthy migrate``: a managed store's schema, planned or applied."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from shipworthy.cli.options import EXIT_PROBLEM, Config, Json, fail


def register(app: typer.Typer) -> None:
    app.command("migrate")(migrate)


def migrate(
    config: Config = Path("shipworthy.yaml"),
    only_plan: bool = typer.Option(False, "--plan", help="Only say what would run; exit 1 when something would."),
    as_json: Json = False,
) -> None:
    """Bring the store's schema up to date, as the owner (store.migrate_url, or the running embedded store)."""
    from shipworthy.adapters.store.migrate import apply, login_of, plan
    from shipworthy.bootstrap import store_urls
    from shipworthy.model.errors import StartRefused

    try:
        url, migrate_url = store_urls(config)
        pending = plan(migrate_url).pending
        if not only_plan:
            pending = apply(migrate_url, login_of(url), progress=lambda said: typer.echo(said, err=True))
    except StartRefused as refused:
        fail(refused)
    names = [migration.name for migration in pending]
    word = "pending" if only_plan else "applied"
    typer.echo(json.dumps({word: names}) if as_json else "\n".join([f"{len(names)} {word}", *names]))
    if only_plan and names:
        raise typer.Exit(EXIT_PROBLEM)
