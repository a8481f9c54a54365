"""The table of the scenes, and its place in the docs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from money_books import Lost
from money_fire import CATCH_UP_S

if TYPE_CHECKING:
    from money_scene import Ended

PAGE = Path(__file__).parents[1] / "docs/explanation/how-money-stays-exact.md"
BEGIN = "<!-- begin: benchmarks/money.py -->\n"
END = "<!-- end: benchmarks/money.py -->\n"
NANO = 1_000_000_000


def table(ended: Sequence[Ended]) -> str:
    """A row a figure, a column a scene."""
    columns = [_column(end) for end in ended]
    names = [f"{end.scene.name}, {end.scene.mode}" for end in ended]
    lines = [f"| | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    if columns:
        lines += [f"| {name} | {' | '.join(column[name] for column in columns)} |" for name in columns[0]]
    return "\n".join(lines) + "\n"


def _column(end: Ended) -> dict[str, str]:
    books = end.books
    caught_up = [lost for lost in books.lost if lost.store_there_s >= CATCH_UP_S]
    behind = [lost for lost in books.lost if lost.store_there_s < CATCH_UP_S]
    levels = {
        f"charged of the cap, {level}": f"${books.charged[level] / NANO:.6f} of ${books.caps[level] / NANO:.2f} "
        f"({100 * books.charged[level] / books.caps[level]:.2f} %)"
        for level in sorted(books.caps)
    }
    refused = ", ".join(f"{count:,} {code.partition('.')[2]}" for code, count in books.refused.most_common()) or "0"
    return {
        "requests": f"{end.asked:,}",
        "at the provider at once": f"{books.at_once:,}",
        "admitted": f"{books.admitted:,}",
        "refused": refused,
        **levels,
        "of that overruns, tenant": f"${books.overruns.get('tenant', 0) / NANO:.6f} in {books.overrun_rows:,} rows",
        "beyond a cap, without overruns": f"${max(0, books.beyond_nano, end.looks.beyond_nano) / NANO:.9f}",
        "looks at the counters": f"{end.looks.count:,}",
        "rows equal to the provider's log": f"{books.compared:,}, ${books.compared_nano / NANO:.9f}",
        "rows that differ from it": f"{len([said for said in end.wrong if 'logged' in said]):,}",
        "deadlocks": f"{end.deadlocks}",
        "workers killed": f"{len(end.fire.kills)}",
        "presumed at the ceiling": f"{books.presumed:,} rows, ${books.presumed_nano / NANO:.6f}; the provider logged "
        f"${books.presumed_logged_nano / NANO:.6f}",
        "of that at less than it logged": f"{books.presumed_less} rows, ${books.presumed_less_nano / NANO:.6f}",
        "served and lost": _lost(books.lost),
        "of that with one kill, at most": _lost([max(caught_up, key=lambda lost: lost.count)] if caught_up else []),
        "oldest of these before its kill": f"{max((lost.oldest_ms for lost in caught_up), default=0):.0f} ms",
        f"lost while the store was away or catching up ({CATCH_UP_S:g} s)": _lost(behind),
        "seconds from the last byte until nothing was set aside": f"{end.drain_s:.1f}",
        "seconds from the last kill until nothing was suspended": f"{end.suspended_s:.0f}",
        "wrong": f"{len(end.wrong)}",
    }


def _lost(losses: Sequence[Lost]) -> str:
    count, nano = sum(lost.count for lost in losses), sum(lost.nano for lost in losses)
    return f"{count:,} requests, ${nano / NANO:.6f}"


def as_json(ended: Sequence[Ended]) -> str:
    return msgspec.json.format(msgspec.json.encode([_plain(end) for end in ended]), indent=2).decode()


def _plain(end: Ended) -> dict[str, object]:
    """All that was found, but for who had which connection."""
    return {each.name: getattr(end, each.name) for each in fields(end)} | {"fire": replace(end.fire, sightings=[])}


def write(ended: Sequence[Ended], page: Path = PAGE) -> None:
    """Puts the table between its markers."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} has lost the markers {BEGIN.strip()} and {END.strip()}")
    page.write_text(f"{before}{BEGIN}{table(ended)}{END}{after}", encoding="utf-8")
