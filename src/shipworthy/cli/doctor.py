"""``shipworthy doctor``: what of a deployment works on this machine, and what to do about the rest."""

from __future__ import annotations

import asyncio
import json
import resource
import shutil
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import typer

from shipworthy.cli.options import EXIT_PROBLEM, Config, Json

if TYPE_CHECKING:
    from shipworthy.manifest.load import Loaded
    from shipworthy.model.observation import Observation

FREE_BYTES_MIN = 1 << 30
DESCRIPTORS_MIN = 4096
SKEW_S_MAX = 2.0
CONNECT_S = 3.0


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(config: Config = Path("shipworthy.yaml"), as_json: Json = False) -> None:
    """Check manifest, keys, store, issuers, providers and machine. Exit 1 when something is broken."""
    from msgspec.structs import asdict

    from shipworthy.control.health import Level, examine

    findings = asyncio.run(examine(_checks(config)))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        marks = {Level.OK: ("✓", "green"), Level.WARNING: ("!", "yellow"), Level.PROBLEM: ("✗", "red")}
        for finding in findings:
            mark, colour = marks[finding.level]
            typer.secho(f"{mark} {finding.check:<22} {finding.saw}", fg=colour)
            if finding.hint and finding.level is not Level.OK:
                typer.echo(f"  → {finding.hint}")
    if any(finding.level is Level.PROBLEM for finding in findings):
        raise typer.Exit(EXIT_PROBLEM)


def _checks(config: Path) -> list[Check]:
    from shipworthy.bootstrap import read_manifest
    from shipworthy.control.health import Check
    from shipworthy.manifest.problem import ManifestRefused

    checks = [Check("python", _python), Check("open files", _descriptors, soft=True)]
    try:
        loaded = read_manifest(config)
    except ManifestRefused as refused:
        problem = refused

        async def broken() -> str:
            raise problem

        return [*checks, Check("manifest", broken)]
    deployment = loaded.deployment
    checks += [
        Check("manifest", _said(f"{config}: {len(loaded.warnings)} warnings, digest {loaded.snapshot.digest[:12]}")),
        Check("disk", lambda: _disk(deployment.store.path or config.absolute().parent)),
        Check("store", lambda: _store(config)),
        Check("clock", lambda: _clock(config), hint="let the machine's clock be set by NTP", soft=True),
    ]
    for issuer in deployment.identity.issuers:
        where = issuer.jwks_uri or issuer.issuer
        checks.append(
            Check(f"issuer {issuer.issuer}"[:40], _reach(where), hint="tokens of this issuer will be refused")
        )
    for provider in loaded.snapshot.providers.values():
        where = str(getattr(provider.settings, "base_url", "") or "")
        if where:
            hint = "requests fall back to other models, or fail"
            checks.append(Check(f"provider {provider.name}", _reach(where), hint=hint, soft=True))
    return [*checks, *_extras(loaded)]


def _extras(loaded: Loaded) -> list[Check]:
    from shipworthy.adapters.providers.llama_cpp import LlamaCppConfig
    from shipworthy.control.health import Check

    needs = any(isinstance(provider.settings, LlamaCppConfig) for provider in loaded.snapshot.providers.values())
    return [Check("local model", _local_model)] if needs else []


def _said(what: str) -> Callable[[], Awaitable[str]]:
    async def ask() -> str:
        return what

    return ask


async def _python() -> str:
    from shipworthy.model.errors import StartRefused

    said = sys.version.split()[0]
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        raise StartRefused("python.version", f"Python {said}; 3.11 to 3.13 are supported", "use one of them")
    return f"Python {said}"


async def _descriptors() -> str:
    from shipworthy.model.errors import StartRefused

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < DESCRIPTORS_MIN:
        raise StartRefused("machine.descriptors", f"{soft} allowed, {DESCRIPTORS_MIN} wanted", "ulimit -n 65536")
    return f"{soft} allowed"


async def _disk(path: Path) -> str:
    return _free(path)


def _free(path: Path) -> str:
    from shipworthy.model.errors import StartRefused

    place = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < FREE_BYTES_MIN:
        raise StartRefused(
            "machine.disk", f"{free >> 20} MiB free at {place}", "free space: a full disk stops the record"
        )
    return f"{free >> 30} GiB free at {place}"


async def _store(config: Path) -> str:
    from shipworthy.bootstrap import control_plane

    async with control_plane(config, _silent):
        return "reachable; roles, row-level security and schema are as they must be"


async def _clock(config: Path) -> str:
    from shipworthy.bootstrap import store_clock
    from shipworthy.model.errors import StartRefused

    skew_s = abs(time.time() - await store_clock(config))
    if skew_s > SKEW_S_MAX:
        raise StartRefused("machine.clock", f"{skew_s:.1f} s apart from the store's clock")
    return f"{skew_s * 1000:.0f} ms apart from the store's clock"


async def _local_model() -> str:
    from importlib.metadata import PackageNotFoundError, version

    from shipworthy.model.errors import StartRefused

    try:
        return f"xllamacpp {version('xllamacpp')}"
    except PackageNotFoundError:
        raise StartRefused(
            "local.extra_missing", "the extra `local` is not installed", "pip install 'shipworthy[local]'"
        ) from None


def _reach(url: str) -> Callable[[], Awaitable[str]]:
    async def ask() -> str:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, lambda: socket.create_connection((parts.hostname, port), CONNECT_S).close())
        return f"{parts.hostname}:{port} answers in {(time.monotonic() - began) * 1000:.0f} ms"

    return ask


def _silent(_: Observation) -> None:
    return


if TYPE_CHECKING:
    from shipworthy.control.health import Check
