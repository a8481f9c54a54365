"""``shipworthy demo``: from nothing to a governed, recorded answer, with a tour of what was refused and why."""

from __future__ import annotations

import asyncio
import json
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import typer

from shipworthy.cli.options import EXIT_PROBLEM, fail

if TYPE_CHECKING:
    from shipworthy.model.observation import Observation

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
    price: {{input_usd_per_mtok: 0.02, output_usd_per_mtok: 0.08}}    # what a GPU of your own might cost: every model has a price
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
    once: bool = typer.Option(False, "--once", help="End after the tour, with exit code 0."),
    model: Path | None = typer.Option(None, "--model", help="A GGUF file to use instead of the bundled base model."),
    openai: bool = typer.Option(False, "--openai", help="Use OpenAI with OPENAI_API_KEY instead of a local model."),
    place: Path = typer.Option(PLACE, "--dir", help="Where the demo keeps its manifest, store and log."),
    port: int = typer.Option(8080, help="Port of the data plane; 0 = any free one."),
    admin_port: int = typer.Option(8090, help="Port of the control plane; 0 = any free one."),
) -> None:
    """Run a whole deployment on this machine: PostgreSQL, a local model, two tenants, and a tour for real."""
    from shipworthy.cli.tour import Tour, TourFailed
    from shipworthy.model.errors import StartRefused
    from shipworthy.process.supervisor import Supervisor

    config = write_manifest(place, model=model, openai=openai, port=port, admin_port=admin_port)
    typer.echo(f"demo: manifest {config} · log {place / 'server.log'}")
    try:
        with (place / "server.log").open("a", encoding="utf-8") as log:

            def observe(observation: Observation) -> None:
                log.write(json.dumps({"process": "supervisor", "said": repr(observation)}) + "\n")
                log.flush()

            supervisor = Supervisor(config, migrate=False, observe=observe, progress=say, log=log)
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
