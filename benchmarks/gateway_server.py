"""Shipworthy as the benchmarks run it: the whole path on, a PostgreSQL of its own, every process on its core."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from gateway_target import Sender, Target, await_answer
from money_ground import Database
from processes import ALLOWED, command, cores, end, family, free_port, memory_mb, name, on_cores, pin
from upstream import FAULTY_MODEL, PACED_MODEL, WHOLE_MODEL

from shipworthy import __version__
from shipworthy.adapters.embedded.postgres_passwords import LOGIN, OWNER
from shipworthy.bootstrap import development_issuer, read_manifest
from shipworthy.model.op import uuid7
from shipworthy.ports import TokenWish

TENANT, TEAM = "acme", "bench"
PEOPLE = 64
TOKEN_S = 86_400
STEADY = "steady"
USE_CASES = {"whole": WHOLE_MODEL, "paced": PACED_MODEL, "faulty": FAULTY_MODEL, STEADY: ""}
"""Use case → the upstream's model that it is answered by."""

BUDGET = {"usd": 1_000_000, "per": "month"}


@dataclass(frozen=True)
class Shape:
    """How it is run."""

    durability: str = "relaxed"
    workers: int = 1
    steady: str = "steady-20-400"
    drain_s: int = 5
    python: Path = Path(sys.executable)
    embedded: bool = False
    """Its own store under its folder, as `shipworthy serve` makes it; else a database of ours."""


def manifest(shape: Shape, upstream_port: int, metrics_port: int) -> str:
    """JSON, which is YAML too."""
    store = {"path": "store"}
    managed = {"url": {"env": "BENCH_STORE"}, "migrate_url": {"env": "BENCH_STORE_OWNER"}}
    limits = {"requests_per_min": 10_000_000, "tokens_per_min": 1_000_000_000, "concurrent": 10_000}
    role = {"groups": [TEAM], "team": TEAM, "use_cases": ["*"], "clearance": "internal"}
    bodies = {"retention_days": 1, "bytes_max": 65_536}
    audit = {"durability": shape.durability, "retention_days": 1, "bodies": bodies}
    base_url = f"http://127.0.0.1:{upstream_port}/v1"
    return json.dumps({
        "shipworthy": 1,
        "name": "bench",
        "environment": "benchmark",
        "requirements": {"audit": audit},
        "server": {"port": 0, "workers": shape.workers, "drain_seconds": shape.drain_s},
        "admin": {"port": 0},
        "telemetry": {"prometheus": {"port": metrics_port}},
        "store": store if shape.embedded else managed,
        "keys": {"file": "keys.json"},
        "identity": {"development_issuer": True},
        "tenants": {
            TENANT: {"budget": BUDGET, "limits": limits, "teams": {TEAM: {"budget": BUDGET}}, "roles": {"agent": role}}
        },
        "providers": {"mock": {"kind": "openai-compatible", "base_url": base_url, "concurrent_max": 10_000}},
        "models": {name: _model(upstream or shape.steady) for name, upstream in USE_CASES.items()},
        "use_cases": {name: _use_case(name, limits) for name in USE_CASES},
    }, indent=1)  # fmt: skip


def _model(upstream: str) -> dict[str, object]:
    return {
        "provider": "mock",
        "upstream": upstream,
        "context_tokens_max": 2_000_000,
        "output_tokens_max": 1_000,
        "price": {"input_usd_per_mtok": 0.1, "output_usd_per_mtok": 0.4},
    }


def _use_case(name: str, limits: dict[str, int]) -> dict[str, object]:
    rule = {"id": "high", "when": "request.data_class > class.internal", "models": [name]}
    return {
        "job": "Answer.",
        "done": {"right": "a", "wrong": "b", "refuse": "c"},
        "owner": TEAM,
        "risk": "minimal",
        "data_class": "internal",
        "mode": "enforce",
        "tokens": {"input_max": 1_900_000, "output_max": 1_000},
        "limits": limits,
        "budget": BUDGET,
        "on_disconnect": {"drain_seconds": 2},
        "route": {"strategy": "first", "models": [name], "rules": [rule]},
    }


@dataclass
class Server:
    """A running one."""

    config: Path
    url: str
    metrics_port: int
    process: subprocess.Popen[str]
    serving_s: float
    """From its start until it said that it serves."""
    senders: Sequence[Sender] = field(default_factory=list)

    def workers(self) -> list[int]:
        return [pid for pid in family(self.process.pid) if name(pid).startswith("sw worker")]

    def around(self) -> list[int]:
        """Supervisor and control plane."""
        workers = set(self.workers())
        return [pid for pid in family(self.process.pid) if pid not in workers and "postgres" not in command(pid)]


def launch(folder: Path, shape: Shape, upstream_port: int) -> Server:
    """Starts one in ``folder`` and returns when it serves; what it wrote there before is found again."""
    config, metrics_port = folder / "shipworthy.yaml", free_port()
    config.write_text(manifest(shape, upstream_port, metrics_port))
    with (folder / "log").open("ab") as log:
        began = time.perf_counter()
        process = subprocess.Popen(
            [shape.python, "-m", "shipworthy", "serve", "-c", str(config)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    said = process.stdout.readline()
    took = time.perf_counter() - began
    if not said.startswith("serving at "):
        end(process)
        raise SystemExit(f"the server did not start:\n{(folder / 'log').read_text(errors='replace')}")
    return Server(config, f"{said.split()[2]}/chat/completions", metrics_port, process, took)


def tokens(config: Path, people: int = PEOPLE) -> list[Sender]:
    """As many people's tokens."""
    issuer = development_issuer(read_manifest(config))
    assert issuer is not None
    made: list[Sender] = []
    for n in range(people):
        wish = TokenWish(tenant=TENANT, subject=f"person-{n:03d}", groups=(TEAM,), ttl_s=TOKEN_S)
        token = issuer.mint(wish, uuid7(time.time_ns()), time.time_ns())
        made.append({"authorization": f"Bearer {token}"})
    return made


@contextmanager
def serving(
    base: Path, database: Database, shape: Shape, upstream_port: int, *, worker_cores: Sequence[int] = cores()[:1]
) -> Iterator[tuple[Server, str]]:
    """A server over a new database, and that database's name: workers on their cores, all else on the last one."""
    store = database.store()
    folder = base / store
    folder.mkdir(mode=0o755)
    environ = {"BENCH_STORE": database.url(LOGIN, store), "BENCH_STORE_OWNER": database.url(OWNER, store)}
    os.environ |= environ  # the manifest names these, and we read it too
    try:
        with on_cores(*ALLOWED):
            server = launch(folder, shape, upstream_port)
        try:
            server.senders = tokens(server.config)
            pin(server.around(), cores()[1])
            for n, worker in enumerate(server.workers()):
                pin([worker], worker_cores[n % len(worker_cores)])
            yield server, store
        finally:
            end(server.process)
    finally:
        database.drop(store)


@contextmanager
def target(
    base: Path, database: Database, durability: str, upstream_port: int, python: Path
) -> Iterator[tuple[Target, str]]:
    """The same as one of several that are measured, up and idle."""
    with serving(base, database, Shape(durability, python=python), upstream_port) as (server, store):
        models = {upstream: name for name, upstream in USE_CASES.items()}
        beside = {"PostgreSQL": lambda: family(database.pid), "supervisor, control": server.around}
        name, senders = f"shipworthy {durability}", server.senders
        up = Target(name, __version__, server.url, senders, server.workers, beside, models=models)
        began = time.perf_counter()
        first_s = await_answer(up.requests(WHOLE_MODEL, stream=False), lambda: server.process.poll() is None) - began
        start_s, idle_mb = server.serving_s + first_s, memory_mb(server.workers())
        yield replace(up, start_s=start_s, idle_mb=idle_mb), store
