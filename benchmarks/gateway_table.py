"""A report as tables, and their place in the docs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from gateway_report import UPSTREAM, Report
from gateway_steps import StepTime

PAGE = Path(__file__).parents[1] / "docs/explanation/how-fast-it-is.md"
BEGIN = "<!-- begin: benchmarks/gateway.py -->\n"
END = "<!-- end: benchmarks/gateway.py -->\n"
NONE = "–"
BUSY_SHARE = 0.1
SKETCH = " That is too much: take these figures for a sketch, of which CPU an answer is the least wrong."


def page(report: Report) -> str:
    """Everything that the docs quote."""
    return "\n".join((_about(report), targets(report), beside(report), goals(report), *stages(report)))


def targets(report: Report) -> str:
    """A row a target."""
    titles = (
        "", "requests/s at 32", "CPU µs a request", "added p50 / p99 at 1, µs", "p50 / p99 at 32, ms",
        "streams/s at 32, burst", "CPU µs a stream, burst / paced", "memory MB, idle / load", "start s", "wrong answers",
    )  # fmt: skip
    rows = []
    for subject in report.subjects:
        name = subject.name
        direct = name == UPSTREAM
        added = [report.added_us(name, "whole", 1, each) for each in ("p50_us", "p99_us")]
        at_32 = [report.figure(name, "whole", 32, each) / 1e3 for each in ("p50_us", "p99_us")]
        cpu = [report.figure(name, kind, 32, "cpu_us") for kind in ("burst", "paced")]
        rows.append((
            f"{name} {subject.version}".strip(),
            _number(report.figure(name, "whole", 32, "per_second")),
            _number(report.figure(name, "whole", 32, "cpu_us")),
            NONE if direct else _pair(added),
            _pair(at_32, 1),
            _number(report.figure(name, "burst", 32, "per_second")),
            _pair(cpu),
            NONE if direct else _pair((subject.idle_mb, report.load_mb(name))),
            NONE if direct else _number(subject.start_s, 2),
            str(report.wrong(name)),
        ))  # fmt: skip
    return _table(titles, rows)


def beside(report: Report) -> str:
    """CPU µs an answer, of the gateway's core and of what works for it elsewhere."""
    shapes = list(dict.fromkeys(seen.shape for seen in report.seen))
    rows = []
    for subject in report.subjects:
        found = [report.of(subject.name, shape.kind, shape.concurrency) for shape in shapes]
        names = dict.fromkeys(name for seen in found if seen is not None for name in seen.samples[0].beside_us)
        if names:
            own = [_number(seen.median("cpu_us")) if seen is not None else NONE for seen in found]
            rows.append((f"{subject.name}: the gateway's core", *own, _number(report.load_mb(subject.name))))
        for name in names:
            cells = [_number(seen.median_beside(name)) if seen is not None else NONE for seen in found]
            rows.append((f"{subject.name}: {name}", *cells, _number(subject.beside_mb.get(name, math.nan))))
    titles = ("CPU µs an answer", *(f"{shape.kind} {shape.concurrency}" for shape in shapes), "memory MB")
    return _table(titles, rows) if rows else ""


def goals(report: Report) -> str:
    rows = []
    for goal in report.goals():
        wanted = f"{'at least' if goal.at_least else 'at most'} {goal.wanted:g}"
        said = NONE if math.isnan(goal.seen) else "yes" if goal.met else "no"
        rows.append((goal.words, wanted, _number(goal.seen, 2), said))
    return _table(("goal", "wanted", "seen", "reached"), rows)


def stages(report: Report) -> Iterable[str]:
    """One table a target, a column pair a load."""
    by_target: dict[str, list[str]] = {}
    for name in report.steps:
        by_target.setdefault(name.partition(", ")[0], []).append(name)
    for target, names in by_target.items():
        columns = [{step.stage: step for step in report.steps[name]} for name in names]
        titles = (f"{target}: p50 / p99, µs", *(name.partition(", ")[2] for name in names))
        known = dict.fromkeys(stage for column in columns for stage in column)
        yield _table(titles, [(stage, *(_took(column.get(stage)) for column in columns)) for stage in known])


def _took(step: StepTime | None) -> str:
    return _pair((step.p50_us, step.p99_us), 1) if step is not None else NONE


def _about(report: Report) -> str:
    where = "a loopback of its own" if report.private_network else "the machine's loopback, some peers on all addresses"
    busy = SKETCH if report.others_share > BUSY_SHARE else ""
    missing = "".join(f"\n\nNot measured: {name} ({why})." for name, why in report.missing.items())
    return (
        f"Python {report.python}, {report.cores} cores, {where}. Medians of {report.rounds} interleaved rounds of"
        f" {report.seconds:g} s. Other work took {100 * report.others_share:.0f} % of the cores meanwhile; the disk made"
        f" 8 KB durable in {report.flush_us:,.0f} µs.{busy}{missing}\n"
    )


def _number(value: float, digits: int = 0) -> str:
    return NONE if math.isnan(value) else f"{value:,.{digits}f}"


def _pair(values: Sequence[float], digits: int = 0) -> str:
    return " / ".join(_number(value, digits) for value in values)


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(titles)} |", f"| --- |{' ---: |' * (len(titles) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def write(report: Report, place: Path = PAGE) -> None:
    """Puts the tables between their markers."""
    before, begin, rest = place.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{place} has lost the markers {BEGIN.strip()} and {END.strip()}")
    place.write_text(f"{before}{BEGIN}{page(report)}{END}{after}", encoding="utf-8")
