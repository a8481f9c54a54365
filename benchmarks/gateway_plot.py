"""A report as a picture: four panels, a dot a target, on logarithmic scales; written by hand as the other pictures are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from gateway_report import Report

PICTURE = Path(__file__).parents[1] / "docs/pictures/speed.svg"
WIDTH, PANEL_WIDTH, LABEL_WIDTH, ROW, TOP, GAP = 880, 420, 130, 22, 64, 30
STYLE = """\
    svg { --ink: #1c2430; --soft: #5b6675; --line: #9aa5b4; --paper: #ffffff; --go: #0b6bcb; --off: #8a94a3; }
    @media (prefers-color-scheme: dark) {
      svg { --ink: #e8edf4; --soft: #a8b3c2; --line: #64707f; --paper: #14181f; --go: #6cb2ff; --off: #77828f; }
    }
    text { font: 14px system-ui, sans-serif; fill: var(--ink); }
    .small { font-size: 12px; fill: var(--soft); }
    .head { font-weight: 600; }
    .mid { text-anchor: middle; }
    .paper { fill: var(--paper); }
    .grid { stroke: var(--line); stroke-width: 0.5; opacity: 0.6; }
    .ours { fill: var(--go); }
    .theirs { fill: var(--off); }
"""


class Panel:
    """One figure of all targets that have it."""

    def __init__(self, title: str, better: str, values: Sequence[tuple[str, float]]) -> None:
        self.title, self.better = title, better
        self.values = [(name, value) for name, value in values if value > 0]
        exponents = [math.log10(value) for _, value in self.values]
        self.low = math.floor(min(exponents, default=0))
        self.high = max(math.ceil(max(exponents, default=1)), self.low + 1)

    @property
    def height(self) -> int:
        return TOP + ROW * len(self.values)

    def x(self, value: float) -> float:
        room = PANEL_WIDTH - LABEL_WIDTH - 70
        return LABEL_WIDTH + room * (math.log10(value) - self.low) / (self.high - self.low)

    def draw(self, left: int, top: int) -> list[str]:
        bottom = top + self.height - 14
        lines = [
            f'<text class="head" x="{left}" y="{top + 16}">{escape(self.title)}</text>',
            f'<text class="small" x="{left}" y="{top + 33}">{escape(self.better)}</text>',
        ]
        for exponent in range(self.low, self.high + 1):
            at = left + self.x(10.0**exponent)
            lines.append(f'<path class="grid" d="M{at:.1f} {top + 52}V{bottom}"/>')
            lines.append(f'<text class="small mid" x="{at:.1f}" y="{top + 48}">{_short(10.0**exponent)}</text>')
        for row, (name, value) in enumerate(self.values):
            at, y = left + self.x(value), top + TOP + 6 + ROW * row
            kind = "ours" if name.startswith("shipworthy") else "theirs"
            lines.append(f'<text x="{left}" y="{y + 5}">{escape(name)}</text>')
            lines.append(f'<circle class="{kind}" cx="{at:.1f}" cy="{y}" r="5"/>')
            lines.append(f'<text class="small" x="{at + 10:.1f}" y="{y + 4}">{_short(value)}</text>')
        return lines


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def panels(report: Report) -> list[Panel]:
    names = [subject.name for subject in report.subjects]

    def all_of(kind: str, concurrency: int, figure: str) -> list[tuple[str, float]]:
        return [(name, report.figure(name, kind, concurrency, figure)) for name in names]

    gateways = names[1:]  # the first is the upstream itself
    added = [(name, report.added_us(name, "whole", 1, "p50_us")) for name in gateways]
    cpu = [(name, value) for name, value in all_of("whole", 32, "cpu_us") if name in gateways]
    return [
        Panel(
            "Requests a second",
            "concurrency 32, gateway on one core; more is better",
            all_of("whole", 32, "per_second"),
        ),
        Panel("CPU a request, µs", "of the gateway's core; less is better", cpu),
        Panel("Added to a request alone, µs", "p50, concurrency 1; less is better", added),
        Panel(
            "Streams a second", "31 events at once, concurrency 32; more is better", all_of("burst", 32, "per_second")
        ),
    ]


def picture(report: Report) -> str:
    drawn = panels(report)
    rows = [drawn[:2], drawn[2:]]
    body, top = [], 20
    for row in rows:
        for column, panel in enumerate(row):
            body += panel.draw(24 + column * (PANEL_WIDTH + 12), top)
        top += max(panel.height for panel in row) + GAP
    return "\n".join((
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img" aria-labelledby="t d">',
        '  <title id="t">How fast it is, beside other gateways</title>',
        f'  <desc id="d">{escape(_described(drawn))}</desc>',
        f"  <style>\n{STYLE}  </style>",
        f'  <rect class="paper" width="{WIDTH}" height="{top}" rx="8"/>',
        *(f"  {line}" for line in body),
        "</svg>\n",
    ))  # fmt: skip


def _described(drawn: Sequence[Panel]) -> str:
    """The same in words, for whoever hears it."""
    said = (
        f"{panel.title}: " + ", ".join(f"{name} {_short(value)}" for name, value in panel.values) for panel in drawn
    )
    return ". ".join(said) + "."


def draw(report: Report, place: Path = PICTURE) -> None:
    place.write_text(picture(report), encoding="utf-8")
