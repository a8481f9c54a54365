"""A provider's message keeps its own words and loses the request's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shipworthy.model.quoting import QUOTED, RUN_CHARS_MIN, TEXT_CHARS_MAX, UNCOMPARED, unquoted

TEXTS = ("My diagnosis is a secret of mine.", "{'city': 'Berlin'}")


def test_what_the_request_said_is_taken_out() -> None:
    message = "status 400: Input should be a list, input_value='My diagnosis is a secret of mine.' [type=list_type]"
    assert unquoted(message, TEXTS) == f"status 400: Input should be a list, input_value='{QUOTED}' [type=list_type]"


def test_a_part_of_it_is_taken_out_and_short_coincidences_stay() -> None:
    assert unquoted("near 'sis is a secret of mi…'", TEXTS) == f"near '{QUOTED}…'"
    assert unquoted("the field city is a secre", TEXTS) == "the field city is a secre", "11 characters in common"
    assert unquoted("no reason given", TEXTS) == "no reason given"
    assert unquoted("", TEXTS) == ""
    assert unquoted("anything", ()) == "anything"


def test_a_request_too_large_to_compare_costs_the_message() -> None:
    assert unquoted("status 400: too long", ("x" * (TEXT_CHARS_MAX + 1),)) == UNCOMPARED


@given(st.text("abc ", max_size=200), st.lists(st.text("abc ", max_size=100), max_size=3))
def test_no_run_of_the_request_is_left(message: str, texts: list[str]) -> None:
    """Promise: whatever the texts, no twelve characters in a row of what is kept stand in the request."""
    for kept in unquoted(message, texts).split(QUOTED):
        for place in range(len(kept) - RUN_CHARS_MIN + 1):
            assert not any(kept[place : place + RUN_CHARS_MIN] in text for text in texts)
