"""Exchanges in plain words, against files that a person reads. ``REWRITE=1`` in the environment writes them anew."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID

import pytest

from shipworthy.control.audit import explain
from shipworthy.kit.rows import MS, refused, row
from shipworthy.model.exchange import Outcome, Row
from shipworthy.model.money import Basis, ChargeLine, Component
from shipworthy.model.op import uuid7
from shipworthy.model.route import Attempt, Candidate

FOLDER = Path(__file__).parent / "explain"
ID = UUID("019a8c2e-7b41-7d3a-9c05-3f2b1a0e9d48")

STORIES = {
    "served after a rescue": row(id=ID),
    "spent budget": refused(id=ID),
    "downgraded": row(
        id=ID,
        flags=("downgraded:use_case=support",),
        strategy="first",
        model="local",
        attempts=(Attempt(0, "local", "house", "qwen3-8b", 21 * MS, 1_810 * MS, 619 * MS, status=200),),
        charge_lines=(ChargeLine(0, "local", Component.INPUT, 1_200, 20_000, 24_000, Basis.REPORTED),),
        estimated_nano=90_000,
        held_nano=90_000,
        charged_nano=24_000,
        candidates=(
            Candidate("local", "house", True, "first: first choice"),
            Candidate("small", "openai", False, "budget of use_case=support exhausted"),
        ),
    ),
    "boundary": refused(
        "authorize.boundary",
        id=ID,
        data_class="restricted",
        refusal_detail="No provider's boundary admits the data class restricted for this use case.",
        candidates=(Candidate("small", "openai", False, "boundary: network public is not one of private, local"),),
    ),
    "cut, overrun, a service for a person": row(
        id=ID,
        outcome=Outcome.CUT,
        refusal_code="call.cut",
        refusal_detail="The provider broke the stream off. [broken: reset after 12 events]",
        actor="service:crm",
        end_user="c-17",
        flags=("usage_counted", "overrun"),
        overrun_nano=1_200,
        cut=("output capped at 1000 tokens",),
        finish=("length",),
        strategy="cheapest",
        candidates=(Candidate("small", "openai", True, "cheapest: first choice", 0.00048),),
        attempts=(Attempt(0, "small", "openai", "gpt-4.1-mini", 8 * MS, 900 * MS, 500 * MS, "broken", 200, "reset"),),
        charge_lines=(ChargeLine(0, "small", Component.INPUT, 1_200, 400_000, 480_000, Basis.COUNTED),),
        charged_nano=480_000,
    ),
    "everything failed": row(
        id=ID,
        outcome=Outcome.FAILED,
        refusal_code="call.timeout",
        refusal_detail="No provider answered in time.",
        attempts=(Attempt(0, "small", "openai", "gpt-4.1-mini", 8 * MS, 30_000 * MS, 0, "first_token_timeout"),),
        charge_lines=(),
        charged_nano=0,
        model="",
        provider="",
        source="",
        duration_ns=30_100 * MS,
        first_token_ns=0,
    ),
    "replayed": row(id=ID, source="replay", attempts=(), candidates=(), charge_lines=(), charged_nano=0),
    "hardly anything known": refused(
        "decode.not_json",
        id=ID,
        subject="",
        role="",
        team="",
        use_case="",
        alias="",
        mode="",
        data_class="",
        rules=(),
        steps=(),
        issuer="",
        session="",
        refusal_detail="",
        duration_ns=0,
    ),
    "presumed by the sweeper": row(
        id=ID, outcome=Outcome.FAILED, flags=("presumed",), steps=(), lease_id=ID, charge_lines=(), charged_nano=5
    ),
    "written by another version": refused(
        "stage.unheard_of", id=ID, refusal_detail="", environment="test", region="eu"
    ),
}


def told(story: Row) -> str:
    return "".join(
        f"{section.title}\n" + "".join(f"  {sentence}\n" for sentence in section.sentences) + "\n"
        for section in explain(story)
    )


@pytest.mark.parametrize("name", STORIES)
def test_an_exchange_in_plain_words(name: str) -> None:
    file = FOLDER / f"{name.replace(' ', '-').replace(',', '')}.txt"
    if os.environ.get("REWRITE"):
        file.write_text(told(STORIES[name]))
    assert told(STORIES[name]) == file.read_text()


@pytest.mark.parametrize("outcome", list(Outcome))
def test_every_outcome_is_told_in_whole_sentences(outcome: Outcome) -> None:
    for section in explain(row(outcome=outcome)):
        for sentence in section.sentences:
            assert sentence[0].isalnum() or sentence[0] == "$", sentence
            assert sentence.endswith((".", "!", "?")), sentence
            assert "None" not in sentence


def test_every_code_is_explained() -> None:
    """No refusal in the catalogue leaves its reader without a hint."""
    from shipworthy.model.errors import CODES

    for code in CODES:
        sentences = explain(refused(code, id=uuid7(0), refusal_detail=""))[0].sentences
        assert any("told to do" in sentence for sentence in sentences), code
