"""Shipworthy's whole governed path beside its peers, on one machine in one run. README.md beside this file says how.

``python benchmarks/gateway.py`` measures all that can be installed here and prints the tables; ``--write-docs`` writes
them, and a picture, into docs/explanation/how-fast-it-is.md.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent))

import gateway_server
from gateway_ground import Ground, ground
from gateway_peers import PEERS, NotInstalled, Peer, installed, running
from gateway_plot import draw
from gateway_python import Python, chosen, environment
from gateway_report import UPSTREAM, Report, Subject
from gateway_rounds import KINDS, Seen, Shape, played, warmed
from gateway_steps import StepTime, steps
from gateway_table import page, write
from gateway_target import NoAnswer, Target
from processes import ALLOWED, cpu_s, family, flush_us, machine_cpu_s, memory_mb, private_network

DURABILITIES = ("relaxed", "strict")
ALL = ",".join(f"{kind}:{concurrency}" for kind in KINDS for concurrency in (1, 32, 64))


def prepared(peers: Sequence[Peer], cache: Path, python: Python) -> tuple[list[tuple[Peer, Path]], dict[str, str]]:
    """The peers that are here now, and why the others are not."""
    ready: list[tuple[Peer, Path]] = []
    missing: dict[str, str] = {}
    for peer in peers:
        print(f"{peer.name}: {peer.pins}", file=sys.stderr, flush=True)
        try:
            ready.append((peer, installed(peer, cache, python)))
        except NotInstalled as why:
            missing[peer.name] = str(why)
            print(f"{peer.name} is left out: {why}", file=sys.stderr, flush=True)
    return ready, missing


class Field:
    """All targets, up at once; each is loaded alone."""

    def __init__(self, ground: Ground, stack: ExitStack, python: Python) -> None:
        self.ground, self._stack = ground, stack
        self._python = environment(python, ground.base / "python")
        url = f"http://127.0.0.1:{ground.port}/v1/chat/completions"
        direct = Target(UPSTREAM, "", url, [{"authorization": "Bearer none"}], lambda: [ground.upstream_pid])
        self.targets = [direct]
        self.stores: dict[str, str] = {}

    def raise_peer(self, peer: Peer, folder: Path) -> None:
        self.targets.append(self._stack.enter_context(running(peer, folder, self.ground.port)))

    def raise_shipworthy(self, durability: str) -> None:
        up = gateway_server.target(self.ground.base, self.ground.database, durability, self.ground.port, self._python)
        target, store = self._stack.enter_context(up)
        self.targets.append(target)
        self.stores[target.name] = store

    def steps(self, seen: Sequence[Seen]) -> dict[str, list[StepTime]]:
        """Of the last round of each kind of load; paced streams are bursts to all stages but one."""
        found = {}
        for each in seen:
            if each.target in self.stores and each.shape.kind != "paced":
                conninfo = self.ground.database.superuser(self.stores[each.target])
                stream, window = each.shape.kind != "whole", each.samples[-1].window_ns
                name = f"{each.target}, {each.shape.kind} {each.shape.concurrency}"
                found[name] = steps(conninfo, window, stream=stream)
        return found


def measure(
    asked: argparse.Namespace,
    ready: Sequence[tuple[Peer, Path]],
    missing: dict[str, str],
    private: bool,
    python: Python,
) -> Report:
    with ground() as base, ExitStack() as stack:
        field = Field(base, stack, python)
        for durability in DURABILITIES:
            if wanted(asked, f"shipworthy {durability}"):
                field.raise_shipworthy(durability)
        for peer, folder in ready:
            try:
                field.raise_peer(peer, folder)
            except NoAnswer as why:
                missing[peer.name] = f"installed, but {why}"
        print("up: " + ", ".join(target.name for target in field.targets), file=sys.stderr, flush=True)
        flush = flush_us(base.base)
        warmed(field.targets, asked.warm)
        began, others = time.monotonic(), machine_cpu_s() - cpu_s(family(os.getpid()))
        seen = played(field.targets, asked.loads, asked.rounds, asked.seconds)
        others = machine_cpu_s() - cpu_s(family(os.getpid())) - others
        return Report(
            python.words, len(ALLOWED), asked.rounds, asked.seconds, private,
            max(0.0, others / (time.monotonic() - began) / len(ALLOWED)), flush,
            [subject(each) for each in field.targets],
            missing, seen, field.steps(seen),
        )  # fmt: skip


def subject(target: Target) -> Subject:
    beside = {name: memory_mb(pids()) for name, pids in target.beside.items()}
    return Subject(target.name, target.version, target.start_s, target.idle_mb, beside)


def shapes(said: str) -> list[Shape]:
    """ValueError, which argparse explains, when it is none."""
    made = [Shape(kind, int(concurrency)) for kind, _, concurrency in (each.partition(":") for each in said.split(","))]
    if unknown := [shape.kind for shape in made if shape.kind not in KINDS]:
        raise ValueError(f"no such kind of load: {unknown}")
    return made


def wanted(asked: argparse.Namespace, name: str) -> bool:
    return not asked.only or any(name.startswith(each) for each in asked.only.split(","))


def run(asked: argparse.Namespace) -> Report:
    """Peers are fetched before the network becomes our own."""
    python = chosen(asked.python)
    with ExitStack() as stack:
        cache = asked.peers or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shipworthy-peers-")))
        ready, missing = prepared([peer for peer in PEERS if wanted(asked, peer.name)], cache.absolute(), python)
        return measure(asked, ready, missing, private_network(), python)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="where peers are installed and found again (a temporary folder)")
    parser.add_argument("--python", type=Path, help="that Python's gateways run on (the distribution's, else this one)")
    parser.add_argument("--only", help="names to begin with, by comma: shipworthy,ferrogw")
    parser.add_argument("--loads", type=shapes, default=shapes(ALL), help="kind and concurrency each: whole:1,paced:32")
    parser.add_argument("--seconds", type=float, default=4.0, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warm", type=float, default=2.0, help="seconds of load before the first round")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write-docs", action="store_true")
    parser.add_argument("--again", type=Path, metavar="FILE", help="measure nothing: tell what --json kept")
    asked = parser.parse_args()
    report = msgspec.json.decode(asked.again.read_bytes(), type=Report) if asked.again else run(asked)
    print(page(report))
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    if asked.write_docs:
        write(report)
        draw(report)
    return 1 if any(report.wrong(subject.name) for subject in report.subjects) else 0


if __name__ == "__main__":
    sys.exit(main())
