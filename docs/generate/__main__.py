"""The reference, written from the code: ``python docs/generate`` writes it, ``--check`` says whether it is as the code says."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable
from pathlib import Path

import cli_page
import conditions_page
import errors_page
import http_page
import manifest_page
import metrics_page
import ports_page
import routing_page

REFERENCE = Path(__file__).parents[1] / "reference"
NOTE = "<!-- Written by scripts/docs from the code. Edit the code, or docs/generate. -->\n\n"
PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page.page,
    "conditions.md": conditions_page.page,
    "errors.md": errors_page.page,
    "http.md": http_page.page,
    "manifest.md": manifest_page.page,
    "metrics-and-logs.md": metrics_page.page,
    "ports.md": ports_page.page,
    "routing.md": routing_page.page,
}


def main(check: bool) -> int:
    """0 when every page is as the code says, or was written; 1 when ``check`` finds one that is not."""
    stale = 0
    for name, page in PAGES.items():
        path, text = REFERENCE / name, NOTE + page()
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if before == text:
            continue
        if not check:
            path.write_text(text, encoding="utf-8")
            continue
        stale += 1
        changes = difflib.unified_diff(before.splitlines(), text.splitlines(), name, "the code", lineterm="", n=0)
        sys.stdout.write("\n".join(list(changes)[:20]) + "\n")
    if stale:
        sys.stdout.write(f"{stale} pages are not as the code says: run scripts/docs\n")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
