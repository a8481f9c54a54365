"""How long it takes to import and to be ready, and what memory it takes, idle and busy. See README.md beside this file."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

sys.path.insert(0, str(Path(__file__).parent))

import gateway_server
from gateway_ground import Ground, ground
from gateway_server import Server, Shape
from gateway_target import await_answer
from load import Requests
from open_streams import listen, steady
from processes import ALLOWED, end, memory_mb, on_cores

from shipworthy.adapters.embedded.postgres_home import BASE, find_home

MODULES = ("shipworthy", "shipworthy.cli.main", "shipworthy.process.supervisor", "shipworthy.process.worker")
IMPORT_MS_MAX, READY_S_MAX, MEMORY_MB_MAX = 100.0, 1.0, 200.0
RATE, HELD_S = 2, 3.0


class Figures(Struct):
    """One run."""

    import_ms: dict[str, float]
    cold_s: float
    warm_s: list[float]
    first_answer_s: float
    """From ready to the first answer, of the last warm start."""
    idle_mb: float
    around_mb: float
    in_flight: int
    whole: int
    busy_mb: float


def import_ms(module: str, times: int) -> float:
    """In a fresh interpreter each, bytecode at hand, the interpreter's own start not counted."""
    said = f"import time; began = time.perf_counter(); import {module}; print((time.perf_counter() - began) * 1e3)"
    took = [float(subprocess.check_output([sys.executable, "-c", said])) for _ in range(times + 1)]
    return statistics.median(took[1:])


@contextmanager
def embedded(base: Ground) -> Iterator[Path]:
    """A folder for a server with a store of its own, and nothing left of either."""
    folder = base.base / "embedded"
    folder.mkdir(mode=0o755)
    try:
        yield folder
    finally:
        home = find_home(folder / "store", BASE)
        if home is not None:
            shutil.rmtree(home.root, ignore_errors=True)


@contextmanager
def started(base: Ground, folder: Path, steady_model: str) -> Iterator[Server]:
    """As `shipworthy serve` starts, on all cores."""
    with on_cores(*ALLOWED):
        server = gateway_server.launch(folder, Shape(embedded=True, steady=steady_model), base.port)
    try:
        yield server
    finally:
        end(server.process)


def measure(base: Ground, asked: argparse.Namespace) -> Figures:
    with on_cores(*ALLOWED):
        imports = {module: import_ms(module, asked.times) for module in MODULES}
    model = steady(asked.in_flight, RATE, HELD_S)
    with embedded(base) as folder:
        with started(base, folder, model) as server:
            cold_s = server.serving_s
        warm_s = []
        for _ in range(asked.times - 1):
            with started(base, folder, model) as server:
                warm_s.append(server.serving_s)
        with started(base, folder, model) as server:
            warm_s.append(server.serving_s)
            server.senders = gateway_server.tokens(server.config)
            began = time.perf_counter()
            whole = Requests(server.url, server.senders, "whole", stream=False)
            first_s = await_answer(whole, lambda: server.process.poll() is None) - began
            idle_mb, around_mb = memory_mb(server.workers()), memory_mb(server.around())
            requests = Requests(server.url, server.senders, gateway_server.STEADY, stream=True)
            busy: list[float] = []
            heard = listen(
                requests, asked.in_flight, RATE, HELD_S, lambda opened: busy.append(memory_mb(server.workers()))
            )
    return Figures(
        imports, cold_s, warm_s, first_s, idle_mb, around_mb, asked.in_flight, heard.whole, max(busy)
    )  # fmt: skip


def table(found: Figures) -> str:
    warm = statistics.median(found.warm_s)
    rows: list[tuple[str, str, bool | None]] = [
        (f"import {module}, ms", f"{took:.0f}", took < IMPORT_MS_MAX if module == MODULES[0] else None)
        for module, took in found.import_ms.items()
    ]
    rows += [
        ("ready, cold: a new store is made, s", f"{found.cold_s:.2f}", None),
        (f"ready, warm, s (median of {len(found.warm_s)})", f"{warm:.2f}", warm < READY_S_MAX),
        ("from ready to the first answer, ms", f"{found.first_answer_s * 1e3:.0f}", None),
        ("a worker's memory, idle, MB", f"{found.idle_mb:.0f}", None),
        ("supervisor, control plane and what is forked from, MB", f"{found.around_mb:.0f}", None),
        (f"a worker's memory, {found.in_flight} in flight, MB", f"{found.busy_mb:.0f}", found.busy_mb < MEMORY_MB_MAX),
        ("of these answered whole", str(found.whole), found.whole == found.in_flight),
    ]
    said = {None: "", True: "yes", False: "NO"}
    return "\n".join(
        [
            "| | seen | as wanted |",
            "| --- | ---: | --- |",
            *(f"| {name} | {seen} | {said[met]} |" for name, seen, met in rows),
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5, help="warm starts, and imports of each module")
    parser.add_argument("--in-flight", type=int, default=500)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its bytecode
    with ground() as base:
        found = measure(base, asked)
    print(table(found))
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    return 0 if found.whole == found.in_flight else 1


if __name__ == "__main__":
    sys.exit(main())
