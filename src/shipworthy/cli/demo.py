"""``shipworthy demo``: from nothing to a governed, recorded answer, with a tour of what was refused and why."""

from __future__ import annotations

import asyncio
import json
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from shipworthy.cli.options import EXIT_PROBLEM, fail

PLACE = Path(".shipworthy/demo")

BUNDLED_PROVIDER = """\
  house:                            # a small base model in a child process of this server
    kind: llama-cpp
"""
FILE_PROVIDER = """\
  house:                            # your model, in a child process of this server
    kind: llama-cpp
    path: {path}
"""
OPENAI_PROVIDER = """\
  house:
    kind: openai
    credentials: {env: OPENAI_API_KEY}
    boundary: {regions: [us], network: public, trains_on_data: false, retention_days: 30}
"""
LOCAL_MODEL = """\
  local:
    provider: house
    upstream: {upstream}
    origin: open-weight
    context_tokens_max: 4000
    output_tokens_max: 128
    # every model has a price: about what a GPU of your own might cost
    price: {{input_usd_per_mtok: 0.02, output_usd_per_mtok: 0.08}}
"""
OPENAI_MODEL = """\
  local:
    provider: house
    upstream: gpt-4.1-mini
    origin: frontier
    context_tokens_max: 128000
    output_tokens_max: 1000
"""


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the tour, with exit code 0.")] = False,
    model: Annotated[Path | None, typer.Option(help="A GGUF file instead of the bundled base model.")] = None,
    openai: Annotated[
        bool, typer.Option("--openai", help="OpenAI, with OPENAI_API_KEY, instead of a local model.")
    ] = False,
    place: Annotated[Path, typer.Option("--dir", help="Where the demo keeps its manifest, store and log.")] = PLACE,
    port: Annotated[int, typer.Option(help="Port of the data plane; 0 = any free one.")] = 8080,
    admin_port: Annotated[int, typer.Option(help="Port of the control plane; 0 = any free one.")] = 8090,
) -> None:
    """Run a whole deployment on this machine: PostgreSQL, a local model, two tenants, and a tour for real."""
    from shipworthy.adapters.telemetry.logs import JsonLog
    from shipworthy.cli.tour import Tour, TourFailed
    from shipworthy.model.errors import StartRefused
    from shipworthy.process.nursery import Nursery
    from shipworthy.process.supervisor import Supervisor

    config = write_manifest(place, model=model, openai=openai, port=port, admin_port=admin_port)
    typer.echo(f"demo: manifest {config} · log {place / 'server.log'}")
    try:
        with (place / "server.log").open("a", encoding="utf-8") as log:
            supervisor = Supervisor(
                config, migrate=False, observe=JsonLog(log, "supervisor"), progress=say, nursery=Nursery(log)
            )
            asyncio.run(
                _run(supervisor, Tour(config, supervisor, place / "server.log", bundled=not (model or openai)), once)
            )
    except StartRefused as refused:
        fail(refused)
    except TourFailed as failed:
        typer.secho(f"the tour stopped: {failed}", fg="red", err=True)
        raise typer.Exit(EXIT_PROBLEM) from failed


def say(said: str) -> None:
    typer.echo(f"  · {said}")


def write_manifest(place: Path, *, model: Path | None, openai: bool, port: int, admin_port: int) -> Path:
    """The demo's manifest, written anew each time: the demo is always the one that is described."""
    place.mkdir(parents=True, exist_ok=True)
    if openai:
        provider, served = OPENAI_PROVIDER, OPENAI_MODEL
    elif model is not None:
        provider = FILE_PROVIDER.format(path=json.dumps(str(model.absolute())))
        served = LOCAL_MODEL.format(upstream=json.dumps(model.stem))
    else:
        provider, served = BUNDLED_PROVIDER, LOCAL_MODEL.format(upstream="gemma-3-270m")
    template = Template(files("shipworthy.cli").joinpath("demo.yaml").read_text(encoding="utf-8"))
    text = template.substitute(
        port=port, admin_port=admin_port, local_provider=provider.rstrip(), local_model=served.rstrip()
    )
    path = place / "shipworthy.yaml"
    path.write_text(text, encoding="utf-8")
    return path


async def _run(supervisor: object, tour: object, once: bool) -> None:
    from shipworthy.cli.tour import Tour
    from shipworthy.process.supervisor import Supervisor

    assert isinstance(supervisor, Supervisor)
    assert isinstance(tour, Tour)
    serving = asyncio.create_task(supervisor.run())
    started = asyncio.create_task(supervisor.started.wait())
    await asyncio.wait({serving, started}, return_when=asyncio.FIRST_COMPLETED)
    started.cancel()
    try:
        if supervisor.started.is_set():
            await tour.walk()
            if not once:
                typer.echo("\nThe server stays up; Ctrl-C ends it.")
                await asyncio.wait({serving})
    finally:
        supervisor.stop()
        await serving
