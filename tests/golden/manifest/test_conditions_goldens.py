"""One file a condition: the expression, dashes, what it decides for a few requests. Promise: rules mean what they say.

``REWRITE_GOLDENS=1 pytest tests/golden/manifest`` writes what is said now; read the diff before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shipworthy.adapters.policy.cel import compile_condition
from shipworthy.model.conditions import FACTS, ConditionError, ConditionUndecided

CASES = sorted((Path(__file__).parent / "conditions").glob("*.txt"))
RULE = "-" * 10
CLASSES = ("public", "internal", "confidential", "restricted")

PERSON: dict[str, object] = {
    "request.data_class": 1, "request.stream": False, "request.images": 0, "request.tokens": 120,
    "request.operation": "chat", "request.tools": 0, "principal.tenant": "acme", "principal.team": "support",
    "principal.subject": "ada", "principal.actor": "", "principal.role": "agent", "principal.kind": "person",
    "use_case": "faq",
}  # fmt: skip
REQUESTS: dict[str, dict[str, object]] = {
    "a person asks": PERSON,
    "a service streams": PERSON
    | {
        "request.stream": True, "request.tokens": 9_000_000_000, "principal.kind": "service", "principal.subject": "svc-1",
        "principal.role": "backend", "principal.team": "sales",
    },
    "restricted, with images": PERSON | {"request.data_class": 3, "request.images": 2, "request.tools": 5},
    "a service for a person": PERSON | {"principal.actor": "svc-1", "use_case": "", "request.operation": "embed"},
    "hostile texts": PERSON | {"principal.subject": '" || true || "', "principal.team": "a\x00\n\u2028", "use_case": "*"},
    "a fact is missing": {name: value for name, value in PERSON.items() if name.startswith("principal.")},
}  # fmt: skip


def said_of(expression: str) -> str:
    try:
        condition = compile_condition(expression, CLASSES)
    except ConditionError as bad:
        hint = f"  hint {bad.hint}\n" if bad.hint else ""
        return f"problem: {bad.what}\n  said {bad.said}\n  wanted {bad.wanted}\n{hint}"
    lines = []
    for name, facts in REQUESTS.items():
        try:
            decided = str(condition(facts)).lower()
            assert str(condition(facts)).lower() == decided, "the second answer comes from the cache"
        except ConditionUndecided as undecided:
            decided = f"undecided: {undecided}"
        lines.append(f"{name}: {decided}\n")
    return "".join(lines)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_what_is_decided(case: Path) -> None:
    text, _, expected = case.read_text(encoding="utf-8").partition(f"{RULE}\n")
    said = said_of(text.strip())
    if os.environ.get("REWRITE_GOLDENS"):
        case.write_text(f"{text}{RULE}\n{said}", encoding="utf-8")
        expected = said
    assert said == expected


def test_the_requests_hold_every_fact() -> None:
    assert set(PERSON) == set(FACTS)
    assert len(CASES) >= 25
