"""``shipworthy serve``: the server, in the foreground, until SIGTERM or Ctrl-C."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from shipworthy.cli.options import Config, fail

if TYPE_CHECKING:
    from shipworthy.process.supervisor import Supervisor


def register(app: typer.Typer) -> None:
    app.command("serve")(serve)


def serve(
    context: typer.Context,
    config: Config = Path("shipworthy.yaml"),
    migrate: bool = typer.Option(False, "--migrate", help="Bring a managed store's schema up to date first."),
) -> None:
    """Serve the data plane and the control plane. An embedded store is migrated by itself."""
    import asyncio

    from shipworthy.adapters.telemetry.logs import capture_stdlib, console_log
    from shipworthy.model.errors import StartRefused
    from shipworthy.process.nursery import Nursery
    from shipworthy.process.supervisor import Supervisor

    log = console_log("supervisor")
    capture_stdlib("supervisor", log)
    try:
        supervisor = Supervisor(
            config,
            migrate=migrate,
            observe=log,
            progress=lambda said: typer.echo(said, err=True),
            nursery=Nursery(started=context.obj),
        )
        for warning in supervisor.loaded.warnings:
            typer.secho(str(warning), fg="yellow", err=True)
        asyncio.run(_run(supervisor))
    except StartRefused as refused:
        fail(refused)


async def _run(supervisor: Supervisor) -> None:
    import asyncio

    serving = asyncio.create_task(supervisor.run())
    started = asyncio.create_task(supervisor.started.wait())
    await asyncio.wait({serving, started}, return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    if supervisor.started.is_set():
        typer.echo(f"serving at {supervisor.address}/v1 · control plane at {supervisor.admin_address}/console")
    await serving
